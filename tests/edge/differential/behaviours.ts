// How an endpoint behaves: draws a behaviour, and plays it on a socket when a request has come. A behaviour says how;
// the request says what: a stream or not, of which path. Called by cases.ts and endpoint.ts.
import type { Socket } from "node:net";
import { asked, content, events } from "./contents.js";
import { Draw } from "./draw.js";
import { BEFORE, HEADS, NONSENSE, TYPES, failed, marred, odd, refusal } from "./faults.js";
import type { Message } from "./wire.js";
import { type Answer, type Script, written } from "./writing.js";

/** A behaviour. Its seed decides whatever isn't said here. */
export interface Behaviour {
  kind: Kind;
  seed: number;
  /** Whether a stream pauses after its first content, so that all sides begin to pipe it there. */
  pauses?: boolean;
}

export type Kind = (typeof KINDS)[number][1];

/** Kinds by how often they occur. */
const KINDS = [
  [56, "good"],
  [14, "status"],
  [3, "refusal"],
  [2, "redirect"],
  [5, "odd"],
  [3, "type"],
  [2, "empty"],
  [10, "cut"],
  [2, "silent"],
  [2, "reset"],
  [3, "nonsense"],
  [4, "marred"],
  [3, "head"],
] as const;

export const draw = (d: Draw): Behaviour => ({ kind: d.weighted(KINDS), seed: d.below(2 ** 30) });

/** Whether the behaviour may make the edge wait for a limit. */
export const isSlow = ({ kind }: Behaviour): boolean => kind === "silent";

/** How long after the last byte a connection is reset, in milliseconds: a reset drops what is still queued. */
const BEFORE_RESET = 25;

/** Plays a behaviour as the answer to a request. Resolves when the connection may get the next one. */
export async function play(socket: Socket, behaviour: Behaviour, request: Message): Promise<void> {
  const d = new Draw(behaviour.seed);
  const { pieces, end } = script(d, behaviour, request);
  for (const piece of pieces) {
    if (socket.destroyed) return;
    if (typeof piece === "number") await new Promise((resolve) => setTimeout(resolve, piece));
    else socket.write(piece);
  }
  if (end === "fin") socket.end();
  if (end === "reset") setTimeout(() => socket.resetAndDestroy(), BEFORE_RESET);
}

function script(d: Draw, { kind, pauses = false }: Behaviour, request: Message): Script {
  const ask = asked(request);
  const how = { isHead: ask.method === "HEAD", pauses };
  const good = (): Answer =>
    ask.stream ? { status: 200, type: "text/event-stream", body: events(d, ask) } : { status: 200, ...content(d, ask) };
  switch (kind) {
    case "good":
      return written(d, good(), how);
    case "status":
      return written(d, failed(d), how);
    case "refusal":
      return written(d, refusal(d), how);
    case "redirect": {
      const location = `location: ${d.of(["http://127.0.0.1:9/", "/v1/models", "https://a.example/x", ""])}\r\n`;
      return written(
        d,
        { status: d.of([301, 302, 303, 307, 308, 304]), type: "", body: Buffer.alloc(0), lines: location },
        how,
      );
    }
    case "odd":
      return written(d, { ...good(), body: odd(d, ask.stream) }, how);
    case "type":
      return written(d, { ...good(), type: d.of(TYPES) }, how);
    case "empty":
      return written(d, { ...good(), status: d.of([200, 200, 204, 202]), body: Buffer.alloc(0) }, how);
    case "cut": {
      const whole = good();
      return written(d, { ...whole, cut: d.below(whole.body.length) }, how);
    }
    case "marred":
      return written(d, marred(d, good()), how);
    case "silent": {
      const whole = written(d, good(), how);
      // Nobody notices the silence of a stream that is piped.
      const most = pauses ? 2 : whole.pieces.length;
      return { pieces: whole.pieces.slice(0, d.below(most)), end: "hang" };
    }
    case "reset":
      return { pieces: d.is(0.5) ? [] : [Buffer.from("HTTP/1.1 200 OK\r\ncontent-ty")], end: d.of(["reset", "fin"]) };
    case "nonsense":
      return { pieces: [Buffer.from(d.of(NONSENSE), "latin1")], end: "fin" };
    case "head": {
      const whole = written(d, { ...good(), lines: d.of(HEADS)() }, how);
      return d.is(0.3) ? { ...whole, pieces: [Buffer.from(d.of(BEFORE)), ...whole.pieces] } : whole;
    }
  }
}
