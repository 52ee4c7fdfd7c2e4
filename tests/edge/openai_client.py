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


tell("chat", chat)
tell("stream", stream)
tell("response", response)
tell("embeddings", lambda: client.embeddings.create(model="chat-small", input="hi").data[0].embedding)
tell("models", lambda: sorted(model.id for model in client.models.list()))
tell("abort", abort)
tell("unknown model", lambda: chat("chat-huge"))
tell("unknown key", lambda: chat(client=client.with_options(api_key="sk-nobody")))
tell("bad field", lambda: client.chat.completions.create(model="chat-large", messages=messages, extra_body={"tools": 7}))
tell("hosted tool", lambda: client.responses.create(model="chat-large", input="hi", tools=[{"type": "web_search"}]))
tell("rate limit", lambda: chat("limited", client.with_options(max_retries=0)))
tell("all down", lambda: chat("broken"))
tell("stream that dies", lambda: stream("dies"))
