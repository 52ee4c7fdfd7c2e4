// Replaces globals in the glue that wasm-bindgen makes (esbuild --inject, scripts/build-edge). The runtime's own
// globals cross into C++ and back, several times per request.

const done = Promise.resolve();

/**
 * As the runtime's: what is thrown is an `error` event, which tells the shim that the Wasm is broken.
 * @param {() => void} task
 */
export function queueMicrotask(task) {
  done.then(() => {
    try {
      task();
    } catch (error) {
      reportError(error);
    }
  });
}

const Decoder = self.TextDecoder;

/** Short texts in ASCII, such as a header or a URL, are put together here. */
export class TextDecoder {
  /** @param {ConstructorParameters<typeof Decoder>} options */
  constructor(...options) {
    this.whole = new Decoder(...options);
  }

  /** @param {Uint8Array} [bytes] */
  decode(bytes) {
    if (bytes === undefined || bytes.length > 32) return this.whole.decode(bytes);
    let text = "";
    for (let i = 0; i < bytes.length; i++) {
      if (bytes[i] > 127) return this.whole.decode(bytes);
      text += String.fromCharCode(bytes[i]);
    }
    return text;
  }
}
