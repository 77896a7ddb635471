// Verify checks an exported log with the code that sigstore verifies its transparency log with.
//
//     node verify.mjs [--key FILE] [--since CHECKPOINT] [--flip] DIR
//     node verify.mjs --key FILE --receipt FILE ENTRY
//
// Exit 0: all of it is whole. Exit 1: something is not; the reason is on stderr. The options are those of ../go.
//
// @sigstore/verify verifies the checkpoint's Ed25519 signature and, with proofs made of the tiles, each entry. It has
// no proof of consistency: an older checkpoint is compared with the root of as many entries. Its parser of notes is
// lax (it searches for lines that look like signatures, takes their names as regular expressions, and any base64), so
// the spelling of a note is checked here before.

import { createHash, createPublicKey } from "node:crypto";
import { readFileSync, readdirSync, existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import checkpoints from "@sigstore/verify/dist/tlog/checkpoint.js";
import merkle from "@sigstore/verify/dist/tlog/merkle.js";

const WIDTH = 256;
const SPKI = Buffer.from("302a300506032b6570032100", "hex");
const KEY = /^([^+\s]+)\+([0-9a-f]{8})\+([^ ]+)( (0|[1-9][0-9]{0,14}) (-|0|[1-9][0-9]{0,14}))?$/u;
const LINE = /^\u2014 ([^\s+]+) ([A-Za-z0-9+/]+={0,2})$/u;

const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();
const leafHash = (entry) => sha256(Buffer.of(0), entry);
const nodeHash = (left, right) => sha256(Buffer.of(1), left, right);

function check(holds, why) {
  if (!holds) throw new Error(why);
}

function strictBase64(text) {
  const octets = Buffer.from(text, "base64");
  check(octets.toString("base64") === text, `${text} is no base64 in its only spelling`);
  return octets;
}

// The keys as @sigstore/verify wants them, and whether each signs so many entries: a key stands alone on its line, or
// with the first and the last size that it signs ("-": it still does). Others than Ed25519 (type 1) are left out.
function parseKeys(text) {
  check(text.endsWith("\n"), "vkeys: the last line has no end");
  const keys = text.slice(0, -1).split("\n").map((line) => {
    const [, name, id, typed, , since, until] = KEY.exec(line) ?? [];
    check(name, `${line} is no verifier key`);
    const octets = strictBase64(typed);
    check(sha256(`${name}\n`, octets).toString("hex", 0, 4) === id, `${line} has another id`);
    const last = until === undefined || until === "-" ? Infinity : Number(until);
    const signs = (size) => Number(since ?? 0) <= size && size <= last;
    return { name, id: Buffer.from(id, "hex"), octets, signs };
  });
  return keys.filter(({ octets }) => octets[0] === 1).map(({ name, id, octets, signs }) => ({
    logID: id,
    baseURL: name,
    signs,
    publicKey: createPublicKey({ key: Buffer.concat([SPKI, octets.subarray(1)]), format: "der", type: "spki" }),
  }));
}

function strictNote(octets, keys) {
  const note = octets.toString("utf8");
  check(Buffer.from(note, "utf8").equals(octets), "the note is no UTF-8");
  check(note.endsWith("\n") && note.indexOf("\n\n") > 0, "this is no note");
  check(note.indexOf("\n\n") === note.lastIndexOf("\n\n"), "the note has more than one empty line");
  const lines = note.slice(note.indexOf("\n\n") + 2, -1).split("\n").map((line) => {
    const [, name, signature] = LINE.exec(line) ?? [];
    check(name, `the note has the line ${line}`);
    return { name, id: strictBase64(signature).subarray(0, 4) };
  });
  const [origin, size] = note.split("\n", 2);
  check(/^(0|[1-9][0-9]{0,14})$/.test(size), `${size} is no size`);
  const own = keys.filter((key) => key.baseURL === origin && key.signs(Number(size)));
  const isBy = (line, key) => line.name === key.baseURL && key.logID.equals(line.id);
  check(
    own.some((key) => lines.some((line) => isBy(line, key))),
    `not signed by a key of its log that signs ${size} entries`,
  );
  return { note, own };
}

function openCheckpoint(octets, keys) {
  const { note, own } = strictNote(octets, keys);
  return checkpoints.verifyCheckpoint({ inclusionProof: { checkpoint: { envelope: note } } }, own);
}

function verifyEntry(entry, index, hashes, envelope, head) {
  const inclusionProof = { logIndex: String(index), hashes, checkpoint: { envelope } };
  merkle.verifyMerkleInclusion({ canonicalizedBody: entry, inclusionProof }, head);
}

function tilePath(kind, index, width) {
  const groups = [String(index % 1000).padStart(3, "0")];
  for (let n = Math.floor(index / 1000); n > 0; n = Math.floor(n / 1000)) {
    groups.unshift(`x${String(n % 1000).padStart(3, "0")}`);
  }
  return `tile/${kind}/${groups.join("/")}${width < WIDTH ? `.p/${width}` : ""}`;
}

function unpack(bundle, path) {
  const entries = [];
  for (let at = 0; at < bundle.length; ) {
    check(at + 2 <= bundle.length, `${path} ends within an entry`);
    const end = at + 2 + bundle.readUInt16BE(at);
    check(end <= bundle.length, `${path} ends within an entry`);
    entries.push(bundle.subarray(at + 2, end));
    at = end;
  }
  return entries;
}

// Read rows of tiles or bundles, and take them off what there is still to be read.
function readRow(files, unread, kind, count, take) {
  const row = [];
  for (let index = 0; index * WIDTH < count; index++) {
    const width = Math.min(WIDTH, count - index * WIDTH);
    const path = tilePath(kind, index, width);
    check(files.has(path), `${path} is missing`);
    const taken = take(files.get(path), path);
    check(taken.length === width, `${path} has ${taken.length} of ${width}`);
    unread.delete(path);
    row.push(...taken);
  }
  return row;
}

function splitHashes(tile, path) {
  check(tile.length % 32 === 0, `${path} ends within a hash`);
  return Array.from({ length: tile.length / 32 }, (_, i) => tile.subarray(32 * i, 32 * i + 32));
}

function rootOf(hashes) {
  if (hashes.length === 0) return sha256("");
  if (hashes.length === 1) return hashes[0];
  const middle = 2 ** (Math.ceil(Math.log2(hashes.length)) - 1);
  return nodeHash(rootOf(hashes.slice(0, middle)), rootOf(hashes.slice(middle)));
}

// Each perfect subtree of 2^level leaves, from the rows of tiles.
function nodesOf(rows) {
  const known = new Map();
  const node = (level, index) => {
    if (level % 8 === 0) return rows[level / 8][index];
    const name = `${level}/${index}`;
    if (!known.has(name)) known.set(name, nodeHash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1)));
    return known.get(name);
  };
  return node;
}

function rangeRoot(start, end, node) {
  const level = Math.floor(Math.log2(end - start));
  const first = node(level, start / 2 ** level);
  return start + 2 ** level === end ? first : nodeHash(first, rangeRoot(start + 2 ** level, end, node));
}

function inclusionProof(index, size, node) {
  const path = [];
  for (let start = 0, end = size; end - start > 1; ) {
    const middle = start + 2 ** (Math.ceil(Math.log2(end - start)) - 1);
    path.unshift(index < middle ? rangeRoot(middle, end, node) : rangeRoot(start, middle, node));
    if (index < middle) end = middle;
    else start = middle;
  }
  return path;
}

function verify(files, { keys, since }) {
  const known = parseKeys((keys ?? files.get("vkeys")).toString("utf8"));
  check(files.has("checkpoint"), "checkpoint is missing");
  const head = openCheckpoint(files.get("checkpoint"), known);
  const size = Number(head.logSize);
  const unread = new Set([...files.keys()].filter((path) => path.startsWith("tile/")));
  const entries = readRow(files, unread, "entries", size, unpack);
  const leaves = entries.map(leafHash);
  const rows = [];
  for (let level = 0; Math.floor(size / WIDTH ** level) > 0; level++) {
    rows.push(readRow(files, unread, level, Math.floor(size / WIDTH ** level), splitHashes));
    rows[level].forEach((hash, i) => {
      const right = level === 0 ? leaves[i] : rootOf(rows[level - 1].slice(i * WIDTH, (i + 1) * WIDTH));
      check(hash.equals(right), `hash ${i} of level ${level} is not what the entries say`);
    });
  }
  check(unread.size === 0, `${[...unread][0]} does not belong there`);
  check(size > 0 || head.logHash.equals(sha256("")), "the empty tree has another root");
  const node = nodesOf(rows);
  const envelope = files.get("checkpoint").toString("utf8");
  entries.forEach((entry, i) => verifyEntry(entry, i, inclusionProof(i, size, node), envelope, head));
  if (since) verifySince(openCheckpoint(since, known), head, leaves);
  return `whole: ${size} entries of ${head.origin}`;
}

function verifySince(since, head, leaves) {
  check(since.origin === head.origin, "the older checkpoint is of another log");
  check(since.logSize <= head.logSize, `rolled back: ${since.logSize} entries were signed, ${head.logSize} are there`);
  const root = rootOf(leaves.slice(0, Number(since.logSize)));
  check(root.equals(since.logHash), `the first ${since.logSize} entries are not those that were signed before`);
}

// Which bytes of a note belong to lines with signatures of kinds that @sigstore/verify cannot check.
function unchecked(octets, keys) {
  const others = keys.toString("utf8").split("\n").map((line) => KEY.exec(line)).filter((key) => {
    return key && Buffer.from(key[3], "base64")[0] !== 1;
  });
  const spared = new Set();
  let at = 0;
  for (const line of octets.toString("utf8").split("\n")) {
    const [, name, signature] = LINE.exec(line) ?? [];
    const id = signature && Buffer.from(signature, "base64").toString("hex", 0, 4);
    const length = Buffer.byteLength(line);
    if (others.some((key) => key[1] === name && key[2] === id)) {
      for (let n = 0; n < length; n++) spared.add(at + n);
    }
    at += length + 1;
  }
  return spared;
}

// Signatures that cannot be checked here are left as they are.
function flipEveryBit(files, trust) {
  const spared = unchecked(files.get("checkpoint"), trust.keys ?? files.get("vkeys"));
  const accepted = [];
  let count = 0;
  for (const [name, content] of [...files]) {
    const changed = Buffer.from(content);
    files.set(name, changed);
    for (let bit = 0; bit < 8 * content.length; bit++) {
      if (name === "checkpoint" && spared.has(bit >> 3)) continue;
      count++;
      changed[bit >> 3] ^= 1 << (bit & 7);
      try {
        verify(files, trust);
        accepted.push(`${name}: byte ${bit >> 3}, bit ${bit & 7}`);
      } catch {
        // as it should be
      }
      changed[bit >> 3] ^= 1 << (bit & 7);
    }
  }
  check(accepted.length === 0, `${accepted.length} of ${count} flips were accepted:\n${accepted.join("\n")}`);
  return `each of ${count} flips was rejected`;
}

// A receipt as in C2SP tlog-proof, and the file with the entry.
function verifyReceipt(receipt, entry, keys) {
  const text = readFileSync(receipt, "utf8");
  const gap = text.indexOf("\n\n");
  const [magic, ...lines] = text.slice(0, gap).split("\n");
  check(magic === "c2sp.org/tlog-proof@v1", "this is no receipt");
  if (lines[0].startsWith("extra ")) lines.shift();
  const [, index] = /^index (0|[1-9][0-9]*)$/.exec(lines.shift()) ?? [];
  check(index !== undefined, "the receipt has no index");
  const envelope = text.slice(gap + 2);
  const head = openCheckpoint(Buffer.from(envelope), parseKeys(keys.toString("utf8")));
  verifyEntry(readFileSync(entry), index, lines.map(strictBase64), envelope, head);
  return `whole: entry ${index} of ${head.origin}`;
}

function readExport(directory) {
  const files = new Map();
  for (const name of ["checkpoint", "vkeys"]) {
    if (existsSync(join(directory, name))) files.set(name, readFileSync(join(directory, name)));
  }
  const tiles = join(directory, "tile");
  for (const name of existsSync(tiles) ? readdirSync(tiles, { recursive: true }) : []) {
    const path = join(tiles, name);
    if (statSync(path).isFile()) files.set(`tile/${name.replaceAll("\\", "/")}`, readFileSync(path));
  }
  return files;
}

function main() {
  const options = { key: { type: "string" }, since: { type: "string" }, receipt: { type: "string" } };
  const { values, positionals } = parseArgs({
    options: { ...options, flip: { type: "boolean", default: false } },
    allowPositionals: true,
  });
  const trust = {
    keys: values.key && readFileSync(values.key),
    since: values.since && readFileSync(values.since),
  };
  check(positionals.length === 1, "give one directory, or one entry with its receipt");
  if (values.receipt) return console.log(verifyReceipt(values.receipt, positionals[0], trust.keys));
  const files = readExport(positionals[0]);
  if (trust.keys) files.delete("vkeys");
  console.log(verify(files, trust));
  if (values.flip) console.log(flipEveryBit(files, trust));
}

try {
  main();
} catch (error) {
  console.error(`rejected: ${error.message}`);
  process.exitCode = 1;
}
