// Makes small GeoIP databases. Takes prefixes of IPv4 or IPv6 with their records, returns the bytes of a database by
// version 2.0 of the MMDB format's specification.
import { isIPv6 } from "node:net";

type Fields = { [name: string]: string | Fields };

/** The bytes of a text or of a map. */
function encoded(value: string | Fields): Buffer {
  if (typeof value === "string") return Buffer.concat([Buffer.from([(2 << 5) | value.length]), Buffer.from(value)]);
  const fields = Object.entries(value).flatMap(([name, field]) => [encoded(name), encoded(field)]);
  return Buffer.concat([Buffer.from([(7 << 5) | (fields.length / 2)]), ...fields]);
}

/** The 128 bits of an address. One of IPv4 has 96 zeros in front. */
function bits(address: string): number[] {
  const octets = (text: string) =>
    text.split(".").flatMap((part) => Number(part).toString(2).padStart(8, "0").split(""));
  if (!isIPv6(address)) return [..."0".repeat(96), ...octets(address)].map(Number);
  const [head, tail] = address.split("::").map((part) => part.split(":").filter(Boolean));
  const zeros = tail === undefined ? [] : Array(8 - head.length - tail.length).fill("0");
  const groups = [...head, ...zeros, ...(tail ?? [])];
  return groups.flatMap((group) => Number.parseInt(group, 16).toString(2).padStart(16, "0").split("").map(Number));
}

/** A database of records by prefix. Prefixes must not overlap. */
export function mmdb(records: Record<string, Fields>): Buffer {
  const EMPTY = -1;
  const nodes: [number, number][] = [[EMPTY, EMPTY]];
  const data: Buffer[] = [];
  const isLeaf = new Map<string, number>();
  let size = 0;
  for (const [prefix, record] of Object.entries(records)) {
    const [address, length] = prefix.split("/");
    const path = bits(address).slice(0, Number(length) + (isIPv6(address) ? 0 : 96));
    let node = 0;
    for (const side of path.slice(0, -1)) {
      if (nodes[node][side] === EMPTY) nodes[node][side] = nodes.push([EMPTY, EMPTY]) - 1;
      node = nodes[node][side];
    }
    isLeaf.set(`${node}/${path.at(-1)}`, size);
    data.push(encoded(record));
    size += data.at(-1)!.length;
  }
  const tree = Buffer.alloc(nodes.length * 8);
  nodes.forEach((sides, number) => {
    sides.forEach((next, side) => {
      const leaf = isLeaf.get(`${number}/${side}`);
      const value = leaf !== undefined ? nodes.length + 16 + leaf : next === EMPTY ? nodes.length : next;
      tree.writeUInt32BE(value, number * 8 + side * 4);
    });
  });
  const name = (text: string) => encoded(text);
  const count = Buffer.alloc(4);
  count.writeUInt32BE(nodes.length);
  const field = (text: string, ...value: number[]) => Buffer.concat([name(text), Buffer.from(value)]);
  return Buffer.concat([
    tree,
    Buffer.alloc(16),
    ...data,
    Buffer.from("\xab\xcd\xefMaxMind.com", "latin1"),
    Buffer.from([(7 << 5) | 9]),
    field("binary_format_major_version", (5 << 5) | 1, 2),
    field("binary_format_minor_version", 5 << 5),
    field("build_epoch", 4, 2, 1, 0, 0, 0), // a number of 64 bits: type 9 = 7 + 2
    field("database_type", (2 << 5) | 4, ...Buffer.from("Test")),
    field("description", 7 << 5),
    field("ip_version", (5 << 5) | 1, 6),
    field("languages", 0, 4), // an empty list: type 11 = 7 + 4
    field("node_count", (6 << 5) | 4, ...count),
    field("record_size", (5 << 5) | 1, 32),
  ]);
}

/** A record in the layout of GeoIP2. */
export const country = (code: string): Fields => ({ country: { iso_code: code } });
/** One for addresses that are only registered there. */
export const registered = (code: string): Fields => ({ registered_country: { iso_code: code } });
