// Shows where the time goes: pass.js with the calls of the runtime that a Worker like this one needs, added one by one.
// It decides nothing either. `STEP` is the number of steps:
// 1. It reads the headers, and sends others.
// 2. It answers with its own response, whose body it reads and writes.
// 3. It can abort the request to the endpoint.
// 4. It notices that the client has gone.
// 5. It sets a timer.
// 6. It reads the client's country.
const lines = (headers) => {
  let text = "";
  for (const [name, value] of headers) text += `${name}\n${value}\n`;
  return text;
};
const record = (text) => {
  const parts = text.split("\n");
  const headers = {};
  for (let i = 0; i + 1 < parts.length; i += 2) if (parts[i] !== "host") headers[parts[i]] = parts[i + 1];
  return headers;
};

/**
 * Passes a body on through the Worker. All chunks that the runtime has ready are written at once.
 */
function pump(body, writer) {
  const reader = body.getReader({ mode: "byob" });
  const held = new Uint8Array(1 << 16);
  let size = 0;
  /** @type {number | null} */
  let soon = null;
  const flush = () => {
    clearTimeout(soon);
    soon = null;
    if (size > 0) void writer.write(held.slice(0, size));
    size = 0;
  };
  const came = ({ done, value }) => {
    if (done) return (flush(), void writer.close());
    held.set(value, size);
    size += value.byteLength;
    soon ??= setTimeout(flush, 0);
    reader.read(new Uint8Array(value.buffer)).then(came);
  };
  reader.read(new Uint8Array(4096)).then(came);
}

export default {
  async fetch(request, env) {
    const step = Number(env.STEP);
    const { pathname, search } = new URL(request.url);
    const place = step >= 6 ? String(request.cf?.country) : "";
    const signal = step >= 4 ? request.signal : undefined;
    if (signal) signal.onabort = () => {};
    const timer = step >= 5 ? setTimeout(() => {}, 10_000) : null;
    const headers = step >= 1 ? record(lines(request.headers)) : request.headers;
    const body = await request.arrayBuffer();
    const init = { method: request.method, headers, body, redirect: "manual" };
    if (step >= 3) init.signal = new AbortController().signal;
    const answer = await fetch(env.ENDPOINT + pathname + search, init);
    if (step < 2) return answer;
    const headersOfAnswer = { ...record(lines(answer.headers)), "x-place": place };
    const whole = headersOfAnswer["content-length"] !== undefined;
    delete headersOfAnswer["content-length"];
    delete headersOfAnswer["transfer-encoding"];
    if (whole) {
      const bytes = await answer.arrayBuffer();
      clearTimeout(timer);
      return new Response(bytes, { status: answer.status, headers: headersOfAnswer });
    }
    const { readable, writable } = new IdentityTransformStream();
    pump(answer.body, writable.getWriter());
    clearTimeout(timer);
    return new Response(readable, { status: answer.status, headers: headersOfAnswer });
  },
};
