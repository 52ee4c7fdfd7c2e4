"""Drives PyPI's openai client against the edge and prints one line of JSON for each thing it does.

usage: openai_client.py BASE_URL API_KEY      The spec beside it (python.spec.ts) starts the edge, and reads the lines.
"""

import json
import sys

import openai

base_url, api_key = sys.argv[1:3]
client = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=2)
messages = [{"role": "user", "content": "Say hello."}]


def tell(step, run):
    """Prints what came of a step: its value, or the class, status and code of its error."""
    try:
        print(json.dumps({"step": step, "value": run()}), flush=True)
    except openai.APIError as error:
        found = {"error": type(error).__name__, "status": getattr(error, "status_code", None), "code": error.code}
        print(json.dumps({"step": step, **found}), flush=True)


def chat(model="chat-large", client=client):
    raw = client.chat.completions.with_raw_response.create(model=model, messages=messages)
    return [raw.headers["x-bailiwick-region"], raw.parse().choices[0].message.content]


def stream(model="chat-large"):
    chunks = client.chat.completions.create(model=model, messages=messages, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def response():
    with client.responses.stream(model="chat-large", input="hi") as events:
        return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def abort():
    with client.chat.completions.create(model="endless", messages=messages, stream=True) as chunks:
        return next(chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content)


def files():
    """What becomes of one file of 100 kB: each id that comes back is asked for again."""
    sent = bytes(range(256)) * 400
    made = client.files.create(file=("a.bin", sent), purpose="user_data")
    found = client.files.retrieve(made.id)
    received = client.files.content(made.id).read()
    listed = [file.id for file in client.files.list()]
    deleted = client.files.delete(made.id)
    return {
        "sealed": made.id.startswith("file-bw1"),
        "found": [found.id == made.id, found.filename, found.bytes],
        "content": received == sent,
        "listed": listed == [made.id],
        "deleted": [deleted.id == made.id, deleted.deleted],
        "left": [file.id for file in client.files.list()],
    }


def upload():
    sent = bytes(range(256)) * 4000
    made = client.uploads.upload_file_chunked(
        file=sent, filename="b.bin", bytes=len(sent), mime_type="text/plain", purpose="user_data", part_size=300_000
    )
    return [made.status, client.files.content(made.file.id).read() == sent]


def batch():
    made = client.files.create(file=("in.jsonl", b'{"a":1}\n'), purpose="batch")
    begun = client.batches.create(input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h")
    found = client.batches.retrieve(begun.id)
    return [found.input_file_id == made.id, client.files.content(found.output_file_id).text]


def answers():
    first = client.responses.create(model="chat-large", input="hi")
    second = client.responses.create(model="chat-large", input="and?", previous_response_id=first.id)
    return client.responses.retrieve(second.id).previous_response_id == first.id


tell("chat", chat)
tell("stream", stream)
tell("response", response)
tell("embeddings", lambda: client.embeddings.create(model="chat-small", input="hi").data[0].embedding)
tell("models", lambda: sorted(model.id for model in client.models.list()))
tell("abort", abort)
tell("files", files)
tell("upload in parts", upload)
tell("batch", batch)
tell("stored answers", answers)
tell("unknown file", lambda: client.files.retrieve("file-nobodys"))
tell("unknown model", lambda: chat("chat-huge"))
tell("unknown key", lambda: chat(client=client.with_options(api_key="sk-nobody")))
bad_field = {"model": "chat-large", "messages": messages, "extra_body": {"tools": 7}}
tell("bad field", lambda: client.chat.completions.create(**bad_field))
tell("hosted tool", lambda: client.responses.create(model="chat-large", input="hi", tools=[{"type": "web_search"}]))
tell("rate limit", lambda: chat("limited", client.with_options(max_retries=0)))
tell("all down", lambda: chat("broken"))
tell("stream that dies", lambda: stream("dies"))
