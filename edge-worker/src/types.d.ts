// What the types of workerd don't know: the shim that worker-build makes (scripts/build-edge), and its global variable.

/** The shim. Its class has a method for each function that the Wasm exports. */
declare module "shim" {
  export default class Shim {
    /** After a panic, this makes a new instance of the Wasm. */
    constructor(context: ExecutionContext, env: object);
    /** Starts the task `number`. `text` describes the request. */
    begin(
      number: number, exchange: object, request: Request, env: object, context: ExecutionContext, text: Uint8Array,
    ): void;
    /** Reports an event to the task `number`, and continues it. */
    notify(number: number, what: number, attempt: number, bytes?: Uint8Array): void;
    /** Continues the task `number`. */
    run(number: number): void;
  }
}

/** The shim's state of the Wasm: whether a panic broke it, and the number of its instance. */
declare var __worker_init_state: { criticalError: boolean; instanceId: number };
