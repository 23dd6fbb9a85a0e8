// Receives Vidmill's webhooks: checks the signature, drops what it has seen, answers at once.
//
//   VIDMILL_WEBHOOK_SECRET=whsec_... node webhook_receiver.mjs [port]
//
// Needs Node 18 or newer and no package. While a secret is being rotated, give both, with a space
// between them.

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const TOLERANCE_S = 300;
const BODY_MAX_BYTES = 1_000_000;
const REMEMBERED = 10_000;

const secrets = (process.env.VIDMILL_WEBHOOK_SECRET ?? "").split(" ").filter(Boolean);
if (secrets.length === 0) {
  console.error("set VIDMILL_WEBHOOK_SECRET to the endpoint's secret, whsec_...");
  process.exit(2);
}
const seen = new Set(); // ids of events dealt with; a real receiver keeps them in its database

/** Whether the request was signed with one of our secrets within the last five minutes. */
function isGenuine(headers, body) {
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"];
  const given = (headers["webhook-signature"] ?? "").split(" ").map((text) => Buffer.from(text));
  if (!id || !(Math.abs(Date.now() / 1000 - Number(timestamp)) <= TOLERANCE_S)) return false;
  return secrets.some((secret) => {
    const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
    const digest = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body);
    const expected = Buffer.from(`v1,${digest.digest("base64")}`);
    // Two signatures may come at once; one that fits is enough.
    return given.some((one) => one.length === expected.length && timingSafeEqual(one, expected));
  });
}

/** Do what is to be done; quickly, or put it into a queue of your own. */
function dealWith(event) {
  console.log(event.type, JSON.stringify(event.data));
}

async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > BODY_MAX_BYTES) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const server = createServer(async (request, response) => {
  const body = await read(request); // the bytes as they came: a parsed and rewritten body differs
  if (body === null) return response.writeHead(413).end();
  if (request.method !== "POST" || !isGenuine(request.headers, body)) {
    return response.writeHead(401).end();
  }
  const id = request.headers["webhook-id"];
  if (!seen.has(id)) {
    // The same event may come more than once.
    dealWith(JSON.parse(body));
    seen.add(id);
    if (seen.size > REMEMBERED) seen.delete(seen.values().next().value);
  }
  response.writeHead(204).end();
});

server.listen(Number(process.argv[2] ?? 9000), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
