// Runs random cases on both sides and compares what they did. Called by differential.spec.ts.
import { type Json, until } from "../harness.js";
import { type Case, PER_DOCUMENT, document, make } from "./cases.js";
import { type Difference, compare } from "./compare.js";
import type { Side } from "./side.js";
import type { Happened } from "./view.js";
import { type Answered, type Sent, field } from "./wire.js";

/** How many retries may be under way at once. The budget of an isolate is ten. */
const MOST_RETRIES = 8;
/** How many requests pay for one retry. */
const PER_RETRY = 5;
/** How often a case that differs is run again: what differs then as well has nothing to do with time. */
const AGAIN = 2;
/** How long records may come behind their answer, in milliseconds. */
const RECORDS_WITHIN = 8_000;

export interface Differing {
  number: number;
  differences: Difference[];
}

export interface Outcome {
  cases: number;
  requests: number;
  calls: number;
  /** Lines of log, events and spans of one side. */
  records: number;
  /** How often each status was answered, with the error's code. */
  answers: Map<string, number>;
  /** Cases that differ every time. */
  differing: Differing[];
  /** Cases that differed once, and were equal when they ran again. */
  unsteady: Differing[];
}

/** Runs the cases of a seed with these numbers. */
export function run(
  seed: number,
  numbers: number[],
  workerd: Side,
  native: Side,
  note: (text: string) => void,
): Promise<Outcome> {
  return new Differential(seed, workerd, native).run(numbers, note);
}

class Differential {
  private revision = 0;
  private readonly outcome: Outcome = {
    cases: 0,
    requests: 0,
    calls: 0,
    records: 0,
    answers: new Map(),
    differing: [],
    unsteady: [],
  };

  constructor(
    private readonly seed: number,
    private readonly workerd: Side,
    private readonly native: Side,
  ) {}

  /** Runs the cases with these numbers. */
  async run(numbers: number[], note: (text: string) => void): Promise<Outcome> {
    for (let from = 0; from < numbers.length; from += PER_DOCUMENT) {
      const part = numbers.slice(from, from + PER_DOCUMENT);
      const first = await this.together(part, 0);
      this.outcome.cases += part.length;
      let left = first;
      for (let run = 1; run <= AGAIN && left.length > 0; run++)
        left = await this.together(
          left.map(({ number }) => number),
          run,
        );
      const lasting = new Set(left.map(({ number }) => number));
      this.outcome.differing.push(...left);
      this.outcome.unsteady.push(...first.filter(({ number }) => !lasting.has(number)));
      note(`${this.outcome.cases} cases, ${this.outcome.differing.length} differ`);
    }
    return this.outcome;
  }

  /** Runs cases with one document. Returns those that differ. */
  private async together(numbers: number[], run: number): Promise<Differing[]> {
    const cases = numbers.map((number) => make(this.seed, number, run));
    this.revision += 1;
    const rules = document(cases, this.revision);
    const sides = [this.workerd, this.native];
    for (const { endpoints } of sides) {
      endpoints.posts.length = 0;
      for (const one of cases)
        for (const [name, behaviours] of Object.entries(one.endpoints))
          endpoints.script(`${one.name}/${name}`, behaviours);
    }
    await Promise.all(sides.map((side) => side.follow(this.revision, rules)));
    const logged = sides.map((side) => side.log.length);
    const gate = new Gate(MOST_RETRIES);
    const answers = await Promise.all(cases.map((one) => gate.pass(2 * one.steps.length, () => this.both(one))));
    const records = await this.settled(answers, logged);
    if (run === 0) this.outcome.records += records[0].length;
    const metrics = await Promise.all(sides.map((side) => side.metrics()));
    return cases.flatMap((one, i) => {
      const happened = (at: 0 | 1): Happened => ({
        answers: answers[i][at],
        seen: sides[at].endpoints.seen.get(one.name) ?? [],
        records: records[at],
        metrics: [...metrics[at]].filter(([series]) => series.includes(`"${one.name}`) && !series.includes("resting")),
      });
      if (run === 0) {
        this.outcome.requests += one.steps.length;
        this.outcome.calls += happened(0).seen.length;
        answers[i][0].forEach((answered) => this.count(answered));
      }
      const differences = compare(one, happened(0), happened(1));
      for (const side of sides) side.endpoints.seen.delete(one.name);
      return differences.length > 0 ? [{ number: one.number, differences }] : [];
    });
  }

  private count({ status, body, isWhole }: Answered): void {
    const code =
      body
        .subarray(0, 4_096)
        .toString("latin1")
        .match(/"code":"(\w+)"/)?.[1] ?? "";
    const what = `${status} ${status === 200 ? "" : code}${isWhole ? "" : " broken off"}`.trim();
    this.outcome.answers.set(what, (this.outcome.answers.get(what) ?? 0) + 1);
  }

  /** Runs a case on both sides, and pays for its retries. */
  private async both(one: Case): Promise<[Answered[], Answered[]]> {
    const answers = await Promise.all([this.on(this.workerd, one), this.on(this.native, one)]);
    const calls = [this.workerd, this.native].map((side) => side.endpoints.calls(one.name));
    const retries = Math.max(0, Math.max(...calls) - 1);
    for (let n = retries * PER_RETRY; n > 0; n--) await Promise.all([this.workerd.fill(), this.native.fill()]);
    return answers;
  }

  private async on(side: Side, { steps }: Case): Promise<Answered[]> {
    const answers: Answered[] = [];
    let id = "none";
    for (const step of steps) {
      const answered = await side.ask(filled(step, id));
      id = answered.body.toString("latin1").match(/"id": ?"([\w-]+)"/)?.[1] ?? "none";
      answers.push(answered);
    }
    return answers;
  }

  /** Waits until both sides have the same records, or no more come. */
  private async settled(answers: [Answered[], Answered[]][], logged: number[]): Promise<Happened["records"][]> {
    const sides = [this.workerd, this.native];
    const all = () => sides.map((side, at) => recordsOf(side, logged[at]));
    const ids = ([0, 1] as const).map((at) =>
      answers.map((both) => both[at].map(({ fields }) => field(fields, "x-bailiwick-request-id") ?? "none")),
    );
    /** How many records each request has, in the order of the cases. */
    const counts = (records: Happened["records"], at: number) => {
      const by = new Map<string, number>();
      for (const { id } of records) by.set(id, (by.get(id) ?? 0) + 1);
      return ids[at].map((steps) => steps.map((id) => by.get(id) ?? 0).join()).join(";");
    };
    const isSettled = (records: Happened["records"][]) => counts(records[0], 0) === counts(records[1], 1);
    const began = Date.now();
    // Events are gathered for a second.
    await until(
      async () => Date.now() - began,
      (passed) => passed > 1_300,
    );
    return until(
      async () => all(),
      (records) => isSettled(records) || Date.now() - began > RECORDS_WITHIN,
    );
  }
}

/** Puts the id into a request. */
function filled(step: Sent, id: string): Sent {
  const target = step.target.replaceAll("@ID@", id);
  if (!step.body?.includes("@ID@")) return { ...step, target };
  const body = Buffer.from(step.body.toString("latin1").replaceAll("@ID@", id), "latin1");
  return { ...step, target, body, chunked: step.chunked && [body] };
}

function recordsOf(side: Side, from: number): Happened["records"] {
  const records: Happened["records"] = [];
  for (const line of side.log.slice(from)) {
    if (!line.startsWith('{"')) continue;
    const value = JSON.parse(line);
    if (value.request_id) records.push({ kind: "log", id: value.request_id, value });
  }
  for (const { body } of side.endpoints.posts) {
    const post: Json = JSON.parse(body.toString());
    for (const resource of [...(post.resourceLogs ?? []), ...(post.resourceSpans ?? [])])
      for (const scope of resource.scopeLogs ?? resource.scopeSpans)
        for (const value of scope.logRecords ?? scope.spans) {
          const attribute = value.attributes.find(({ key }: Json) => key === "bailiwick.request.id");
          const kind = scope.logRecords ? "event" : "span";
          records.push({ kind, id: attribute?.value.stringValue ?? "none", value });
        }
  }
  return records;
}

/** Lets so many through at once, by their weight, in the order in which they came. */
class Gate {
  private readonly waiting: [weight: number, go: () => void][] = [];

  constructor(private left: number) {}

  async pass<T>(weight: number, work: () => Promise<T>): Promise<T> {
    await new Promise<void>((go) => {
      this.waiting.push([weight, go]);
      this.open();
    });
    const result = await work();
    this.left += weight;
    this.open();
    return result;
  }

  private open(): void {
    while (this.waiting.length > 0 && this.waiting[0][0] <= this.left) {
      const [weight, go] = this.waiting.shift()!;
      this.left -= weight;
      go();
    }
  }
}
