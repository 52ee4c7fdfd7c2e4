// What stands in for globals in the glue that wasm-bindgen makes (esbuild --inject, scripts/build-edge): the runtime's
// own ones cross into C++ and back, several times per request.

const done = Promise.resolve();

/** As the runtime's: what is thrown is an `error` event, which tells the shim that the Wasm is broken. */
export function queueMicrotask(task) {
  done.then(() => {
    try {
      task();
    } catch (error) {
      reportError(error);
    }
  });
}

const Decoder = globalThis.TextDecoder;

/** Short texts in ASCII, such as a header or a URL, are put together here. */
export class TextDecoder {
  constructor(...options) {
    this.whole = new Decoder(...options);
  }

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
