// Sends requests to the native gateway over real sockets: with the client's own address, a PROXY header, or TLS.
import { once } from "node:events";
import { type Agent, type IncomingMessage, type OutgoingHttpHeaders, request as send } from "node:http";
import type { ClientHttp2Session, ClientHttp2Stream } from "node:http2";
import { type Socket, connect } from "node:net";
import { connect as connectTls } from "node:tls";

export interface Question {
  path?: string;
  method?: string;
  headers?: Record<string, string | string[]>;
  body?: string;
  /** The client's own address. */
  from?: string;
  /** What is sent before HTTP and TLS. */
  before?: string | Buffer;
  isTls?: boolean;
  /** Keeps connections. Otherwise each request has one of its own. */
  agent?: Agent;
}

const CHAT = JSON.stringify({ model: "m", messages: [{ role: "user", content: "Hello." }] });
export const STREAM = JSON.stringify({ ...JSON.parse(CHAT), stream: true });

/** Opens a connection. With TLS it waits for the handshake. */
export async function dial(address: string, { from, before, isTls }: Question = {}): Promise<Socket> {
  const [host, port] = address.split(":");
  const socket = connect({ host, port: Number(port), localAddress: from });
  await once(socket, "connect");
  if (before) socket.write(before);
  if (!isTls) return socket;
  const names = { servername: "chat.example", ALPNProtocols: ["http/1.1"], rejectUnauthorized: false };
  const secure = connectTls({ socket, ...names });
  await once(secure, "secureConnect");
  return secure;
}

/** Sends a request over a connection of its own, by default a chat completion. Returns when the headers are there. */
export async function open(address: string, question: Question = {}): Promise<IncomingMessage> {
  const { path = "/v1/chat/completions", headers, agent } = question;
  const body = question.body ?? (path === "/v1/chat/completions" ? CHAT : undefined);
  const [host, port] = address.split(":");
  const socket = agent ? undefined : await dial(address, question);
  const type = body === undefined ? {} : { "content-type": "application/json", "content-length": body.length };
  const sent = send({
    ...(socket ? { createConnection: () => socket } : { agent, host, port, protocol: (agent as any).protocol }),
    method: question.method ?? (body === undefined ? "GET" : "POST"),
    path,
    headers: { host: "chat.example", ...type, ...headers } as OutgoingHttpHeaders,
  });
  sent.end(body);
  const [answer] = await once(sent, "response");
  return answer;
}

export interface Told {
  status: number;
  region: string | undefined;
  code: string | null;
  text: string;
  json: any;
}

/** Reads an answer to its end. */
export async function told(answer: IncomingMessage): Promise<Told> {
  let text = "";
  for await (const chunk of answer) text += chunk;
  let json: any = null;
  try {
    json = JSON.parse(text);
  } catch {}
  const region = answer.headers["x-bailiwick-region"] as string | undefined;
  return { status: answer.statusCode!, region, code: json?.error?.code ?? null, text, json };
}

/** Sends a request, and reads the answer. */
export const ask = async (address: string, question: Question = {}) => told(await open(address, question));

/** A short request as it is on the wire. */
export const HEALTHZ = "GET /.well-known/bailiwick/healthz HTTP/1.1\r\nHost: chat.example\r\n\r\n";

/** What a connection is told until it is closed. */
export async function heard(socket: Socket): Promise<string> {
  let text = "";
  socket.on("data", (chunk) => (text += chunk)).on("error", () => {});
  if (!socket.closed) await once(socket, "close");
  return text;
}

/** Asks for a streamed chat completion over a session of HTTP/2. */
export function askStream(session: ClientHttp2Session): ClientHttp2Stream {
  const asked = session.request({
    ":method": "POST",
    ":path": "/v1/chat/completions",
    ":authority": "chat.example",
    "content-type": "application/json",
  });
  asked.end(STREAM);
  return asked;
}
