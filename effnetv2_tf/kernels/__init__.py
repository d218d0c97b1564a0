"""Operations of this package's own, in C++: optional, compiled on request.

`python -m effnetv2_tf.kernels` compiles them, `operations` hands them out.
"""
