//! Bodies that are written while an endpoint reads them. Makes a pipe of the runtime: what is written to one end is the
//! body of a request at the other. Called by `runtime`.

use worker::js_sys::{self, futures::JsFuture};
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::web_sys::{TransformStream, WritableStreamDefaultWriter};

/// The body of a request to an endpoint: anything that `fetch` takes.
pub(crate) struct BodyStream(pub(super) JsValue);

impl BodyStream {
    /// A body that is complete.
    pub(crate) fn whole(bytes: &[u8]) -> Self {
        Self(js_sys::Uint8Array::from(bytes).into())
    }
}

/// The end of a pipe that is written to.
pub(crate) struct PipeWriter(WritableStreamDefaultWriter);

impl PipeWriter {
    /// Writes a chunk, and waits until it was read. False if the endpoint has stopped reading.
    pub(crate) async fn write(&self, chunk: &[u8]) -> bool {
        let chunk = js_sys::Uint8Array::from(chunk);
        JsFuture::from(self.0.write_with_chunk(&chunk)).await.is_ok()
    }

    /// Ends the body, which is complete. A writer that is dropped instead leaves the body unfinished: then the request
    /// has to be aborted.
    pub(crate) async fn close(self) {
        let _ = JsFuture::from(self.0.close()).await;
    }
}

/// Makes a pipe, and returns its two ends. `length` is the number of bytes, if known. `None` if the runtime refuses.
pub(crate) fn pipe(length: Option<usize>) -> Option<(BodyStream, PipeWriter)> {
    let name = if length.is_some() { "FixedLengthStream" } else { "IdentityTransformStream" };
    let constructor = js_sys::Reflect::get(&js_sys::global(), &name.into()).ok()?;
    let arguments = js_sys::Array::new();
    if let Some(length) = length {
        arguments.push(&f64::from(u32::try_from(length).ok()?).into());
    }
    let pipe = js_sys::Reflect::construct(constructor.dyn_ref::<js_sys::Function>()?, &arguments).ok()?;
    let pipe: TransformStream = pipe.unchecked_into();
    Some((BodyStream(pipe.readable().into()), PipeWriter(pipe.writable().get_writer().ok()?)))
}
