// What a stand-in endpoint remembers: files and uploads in parts, batches, fine-tuning jobs, vector stores and stored
// answers, in memory. Ids are its own (`file-eu-frankfurt-1`), and one it didn't make is 404: a test sees whether it
// was asked for the right thing.

/** A store; `answer` replies `{status, json}` or `{bytes, type}`, or nothing for a path that is none of its. */
export function stateOf(region, envelope) {
  const kept = {
    file: new Map(),
    batch: new Map(),
    job: new Map(),
    store: new Map(),
    response: new Map(),
    completion: new Map(),
    upload: new Map(),
  };
  let made = 0;
  const id = (start) => `${start}${region}-${++made}`;
  const ok = (json) => ({ status: 200, json });
  const missing = (what, code = "not_found") => ({
    status: 404,
    json: envelope("invalid_request_error", `the stand-in has no ${what}`, code),
  });
  const keep = (kind, object) => (kept[kind].set(object.id, object), object);
  const plain = ({ bytes_: _, type_: __, files_: ___, input_: ____, ...object }) => object;

  const addFile = (filename, purpose, bytes, type) =>
    keep("file", {
      id: id("file-"),
      object: "file",
      bytes: bytes.length,
      created_at: 0,
      filename,
      purpose,
      status: "processed",
      bytes_: bytes,
      type_: type,
    });

  function list(objects, query) {
    let data = [...objects].map(plain);
    const after = query.get("after");
    if (after) {
      const at = data.findIndex((object) => object.id === after);
      if (at < 0) return missing(`object ${after} to go on after`);
      data = data.slice(at + 1);
    }
    return ok({
      object: "list",
      data,
      first_id: data[0]?.id ?? null,
      last_id: data.at(-1)?.id ?? null,
      has_more: false,
    });
  }

  /** The first of these ids that it didn't make. */
  function unknown(kind, ...ids) {
    return ids.flat().find((one) => one != null && !kept[kind].has(one));
  }

  function files(method, [one, more], query, { form }) {
    if (!one) {
      if (method === "GET") return list(kept.file.values(), query);
      const file = form?.get("file");
      if (!file?.bytes || !form.has("purpose"))
        return { status: 400, json: envelope("invalid_request_error", "the form lacks a file or its purpose") };
      return ok(plain(addFile(file.filename, form.get("purpose").bytes.toString(), file.bytes, file.type)));
    }
    const file = kept.file.get(one);
    if (!file) return missing(`file ${one}`);
    if (more === "content") return { bytes: file.bytes_, type: file.type_ ?? "application/octet-stream" };
    if (method === "DELETE") return (kept.file.delete(one), ok({ id: one, object: "file", deleted: true }));
    return ok(plain(file));
  }

  function uploads(method, [one, more], _, { json, form }) {
    if (method !== "POST") return;
    const shown = ({ parts_: _, mime_type: __, ...upload }) => upload;
    if (!one) {
      const { filename, purpose, bytes, mime_type } = json;
      return ok(
        shown(
          keep("upload", {
            id: id("upload_"),
            object: "upload",
            filename,
            purpose,
            bytes,
            mime_type,
            status: "pending",
            parts_: new Map(),
          }),
        ),
      );
    }
    const upload = kept.upload.get(one);
    if (!upload) return missing(`upload ${one}`);
    if (more === "parts") {
      if (!form?.get("data")) return { status: 400, json: envelope("invalid_request_error", 'the form lacks "data"') };
      const part = id("part_");
      upload.parts_.set(part, form.get("data").bytes);
      return ok({ id: part, object: "upload.part", created_at: 0, upload_id: one });
    }
    if (more === "cancel") return ok(shown(Object.assign(upload, { status: "cancelled" })));
    const lost = json.part_ids.find((part) => !upload.parts_.has(part));
    if (lost !== undefined) return missing(`part ${lost}`);
    const bytes = Buffer.concat(json.part_ids.map((part) => upload.parts_.get(part)));
    return ok(
      shown(
        Object.assign(upload, {
          status: "completed",
          file: plain(addFile(upload.filename, upload.purpose, bytes, upload.mime_type)),
        }),
      ),
    );
  }

  function batches(method, [one, more], query, { json }) {
    if (!one) {
      if (method === "GET") return list(kept.batch.values(), query);
      if (unknown("file", json.input_file_id ?? "")) return missing(`file ${json.input_file_id}`);
      const output = addFile("output.jsonl", "batch_output", Buffer.from('{"answered":1}\n'), "application/jsonl");
      return ok(
        keep("batch", {
          id: id("batch_"),
          object: "batch",
          endpoint: json.endpoint,
          input_file_id: json.input_file_id,
          output_file_id: output.id,
          error_file_id: null,
          status: "completed",
          metadata: json.metadata ?? null,
        }),
      );
    }
    const batch = kept.batch.get(one);
    if (!batch) return missing(`batch ${one}`);
    if (more === "cancel") batch.status = "cancelled";
    return ok(batch);
  }

  function jobs(method, [one, more], query, { json }) {
    if (!one) {
      if (method === "GET") return list(kept.job.values(), query);
      const lost = unknown("file", json.training_file ?? "", json.validation_file);
      if (lost !== undefined) return missing(`file ${lost}`);
      const result = addFile("metrics.csv", "fine-tune-results", Buffer.from("step,loss\n"), "text/csv");
      return ok(
        keep("job", {
          id: id("ftjob-"),
          object: "fine_tuning.job",
          model: json.model,
          training_file: json.training_file,
          validation_file: json.validation_file ?? null,
          result_files: [result.id],
          status: "succeeded",
          error: {},
        }),
      );
    }
    const job = kept.job.get(one);
    if (!job) return missing(`job ${one}`);
    if (more === "events")
      return list([{ id: `ftevent-${one}-1`, object: "fine_tuning.job.event", message: "done" }], query);
    if (more === "cancel") job.status = "cancelled";
    return ok(job);
  }

  function stores(method, [one, more, file], query, { json }) {
    if (!one) {
      if (method === "GET") return list(kept.store.values(), query);
      const lost = unknown("file", json.file_ids ?? []);
      if (lost !== undefined) return missing(`file ${lost}`);
      return ok(
        plain(
          keep("store", {
            id: id("vs_"),
            object: "vector_store",
            name: json.name ?? null,
            files_: new Set(json.file_ids ?? []),
          }),
        ),
      );
    }
    const store = kept.store.get(one);
    if (!store) return missing(`vector store ${one}`);
    const entry = (file) => ({ id: file, object: "vector_store.file", vector_store_id: one, status: "completed" });
    if (more === "files") {
      if (method === "POST" && !file) {
        if (unknown("file", json.file_id ?? "") !== undefined) return missing(`file ${json.file_id}`);
        return (store.files_.add(json.file_id), ok(entry(json.file_id)));
      }
      if (!file) return list([...store.files_].map(entry), query);
      if (!store.files_.has(file)) return missing(`file ${file} in it`);
      if (method === "DELETE")
        return (store.files_.delete(file), ok({ id: file, object: "vector_store.file.deleted", deleted: true }));
      return ok(entry(file));
    }
    if (more === "search") {
      const data = [...store.files_].map((file_id) => ({
        file_id,
        filename: kept.file.get(file_id)?.filename,
        score: 1,
        attributes: {},
        content: [],
      }));
      return ok({ object: "vector_store.search_results.page", data, has_more: false });
    }
    if (method === "DELETE")
      return (kept.store.delete(one), ok({ id: one, object: "vector_store.deleted", deleted: true }));
    return ok(plain(store));
  }

  function responses(method, [one, more], query) {
    if (!one) return;
    const response = kept.response.get(one);
    if (!response) return missing(`response ${one}`);
    if (more === "input_items")
      return list([{ id: `msg_in_${one}`, type: "message", role: "user", content: response.input_ }], query);
    if (more === "cancel") response.status = "cancelled";
    if (method === "DELETE") return (kept.response.delete(one), ok({ id: one, object: "response", deleted: true }));
    return ok(plain(response));
  }

  function completions(method, [one]) {
    if (!one) return;
    const completion = kept.completion.get(one);
    if (!completion) return missing(`completion ${one}`);
    if (method === "DELETE")
      return (kept.completion.delete(one), ok({ id: one, object: "chat.completion.deleted", deleted: true }));
    return ok(completion);
  }

  /** @type {[RegExp, Function][]} */
  const rooms = [
    [/^\/v1\/files(?=\/|$)/, files],
    [/^\/v1\/uploads(?=\/|$)/, uploads],
    [/^\/v1\/batches(?=\/|$)/, batches],
    [/^\/v1\/fine_tuning\/jobs(?=\/|$)/, jobs],
    [/^\/v1\/vector_stores(?=\/|$)/, stores],
    [/^\/v1\/responses(?=\/)/, responses],
    [/^\/v1\/chat\/completions(?=\/)/, completions],
  ];

  return {
    answer(method, path, query, headers, body) {
      const room = rooms.find(([start]) => start.test(path));
      if (!room) return;
      const segments = path.replace(room[0], "").split("/").slice(1).map(decodeURIComponent);
      const isForm = headers["content-type"]?.startsWith("multipart/form-data");
      const sent =
        method !== "POST" || body.length === 0
          ? {}
          : isForm
            ? { form: formOf(headers["content-type"], body) }
            : { json: JSON.parse(body.toString("utf8")) };
      return room[1](method, segments, query, sent);
    },

    /** Keeps what an inference asked to be stored, and says what it refers to that isn't there. */
    lost(ask) {
      const mentioned = [...JSON.stringify(ask.messages ?? ask.input ?? []).matchAll(/"file_id":"([^"]*)"/g)].map(
        ([, file]) => file,
      );
      const file = unknown("file", mentioned);
      if (file !== undefined) return missing(`file ${file}`, "file_not_found");
      const before = unknown("response", ask.previous_response_id);
      return before !== undefined ? missing(`response ${before}`, "previous_response_not_found") : undefined;
    },
    keepAnswer(ask, whole) {
      if (whole.object === "response" && ask.store !== false)
        keep("response", { ...whole, previous_response_id: ask.previous_response_id ?? null, input_: ask.input });
      if (whole.object === "chat.completion" && ask.store === true) keep("completion", whole);
    },
  };
}

/** The parts of a form by name, whole: a stand-in may hold what it gets. */
export function formOf(contentType, body) {
  const boundary = contentType.match(/boundary=(.*)$/)?.[1];
  if (boundary === undefined) throw new Error("the form has no boundary");
  const parts = new Map();
  const delimiter = Buffer.from(`\r\n--${boundary}`);
  let text = Buffer.concat([Buffer.from("\r\n"), body]);
  for (let at = text.indexOf(delimiter); at >= 0;) {
    text = text.subarray(at + delimiter.length);
    at = text.indexOf(delimiter);
    const head = text.indexOf("\r\n\r\n");
    if (at < 0 || head < 0) break;
    const name = text.toString("latin1", 0, head).match(/ name="([^"]*)"/)?.[1];
    if (name === undefined) throw new Error("a part of the form has no name");
    const filename = text.toString("utf8", 0, head).match(/filename="([^"]*)"/)?.[1];
    const type = text.toString("latin1", 0, head).match(/content-type: ([^\r]*)/i)?.[1];
    parts.set(name, { filename, type, bytes: Buffer.from(text.subarray(head + 4, at)) });
  }
  return parts;
}
