// The network in the browser: an image file in, a probability for each class out.

import * as ort from "./onnxruntime/ort.wasm.bundle.min.js";
import { decode, NotAnImage } from "./decoding.js";
import { prepare } from "./preparation.js";

export { NotAnImage };

// The page tells of errors itself.
ort.env.logLevel = "error";

export class Classifier {
  /** Loads the model and what is to be known about it: names, labels, preparation of images. */
  static async load() {
    const [metadata, model] = await Promise.all([read("metadata.json"), read("model.onnx")]);
    const session = await ort.InferenceSession.create(await model.arrayBuffer(), {
      executionProviders: ["wasm"],
    });
    return new Classifier(await metadata.json(), session);
  }

  constructor(metadata, session) {
    this.metadata = metadata;
    this.session = session;
  }

  /** Classifies an image file; throws NotAnImage if it is none. */
  async classify(file) {
    const { image_size: size, channels } = this.metadata.preparation;
    const image = await decode(file, this.metadata.preparation);
    const pixels = prepare(image, this.metadata.preparation);
    const input = new ort.Tensor("float32", pixels, [1, size, size, channels]);
    const start = performance.now();
    const outputs = await this.session.run({ [this.session.inputNames[0]]: input });
    const milliseconds = performance.now() - start;
    const probabilities = outputs[this.session.outputNames[0]].data;
    return new Classification(probabilities, this.metadata.labels, milliseconds, image.transparent);
  }
}

/** A file beside this one, fresh: of two exports, labels and network must not be mixed. */
async function read(name) {
  const response = await fetch(new URL(name, import.meta.url), { cache: "no-cache" });
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return response;
}

class Classification {
  constructor(probabilities, labels, milliseconds, transparent) {
    this.probabilities = probabilities;
    this.labels = labels;
    this.milliseconds = milliseconds; // of the network alone
    this.transparent = transparent;
  }

  /** The first `count` classes as {label, probability}, best first. */
  likeliest(count) {
    const order = Array.from(this.probabilities.keys());
    order.sort((a, b) => this.probabilities[b] - this.probabilities[a]);
    return order
      .slice(0, count)
      .map((index) => ({ label: this.labels[index], probability: this.probabilities[index] }));
  }
}
