// Node.js as one end of a connection. Its one argument is a JSON object; it answers with one JSON object per line:
// {"event": "listening", "port"}, {"event": "connected", …}, {"event": "done", "bytes", "sha256"}, {"event": "error", "code"}.
//
// What goes over a connection: eight bytes with a length, big-endian, then as many bytes, which the server sends back.
"use strict";

const crypto = require("node:crypto");
const fs = require("node:fs");
const tls = require("node:tls");

const options = JSON.parse(process.argv[2]);
const HEADER = 8;
const EXPORTER_LABEL = "EXPORTER-qbitel-interop";

function say(event, facts) {
  process.stdout.write(JSON.stringify({ event, ...facts }) + "\n");
}

function credentials() {
  const files = {
    ca: fs.readFileSync(options.ca),
    ecdhCurve: options.groups,
    sigalgs: options.signatures,
    ciphers: options.ciphers,
    minVersion: options.version,
    maxVersion: options.version,
  };
  return options.cert
    ? { ...files, cert: fs.readFileSync(options.cert), key: fs.readFileSync(options.key) }
    : files;
}

function facts(socket) {
  return {
    authorized: socket.authorized,
    identity: (socket.getPeerCertificate() || {}).subjectaltname || "",
    protocol: socket.getProtocol(),
    cipher: socket.getCipher().standardName,
    group: (socket.getEphemeralKeyInfo() || {}).name || "",
    resumed: socket.isSessionReused(),
    exporter: socket.exportKeyingMaterial(48, EXPORTER_LABEL, Buffer.from("context")).toString("hex"),
  };
}

// Sends back what comes, with back-pressure, and ends after the promised number of bytes.
function echo(socket) {
  let head = Buffer.alloc(0);
  let left = -1;
  let total = 0;
  const digest = crypto.createHash("sha256");
  socket.on("data", (data) => {
    if (left < 0) {
      head = Buffer.concat([head, data]);
      if (head.length < HEADER) return;
      left = Number(head.readBigUInt64BE(0));
      data = head.subarray(HEADER);
    }
    left -= data.length;
    total += data.length;
    digest.update(data);
    if (data.length && !socket.write(data)) {
      socket.pause();
      socket.once("drain", () => socket.resume());
    }
    if (left === 0) {
      socket.end();
      say("done", { bytes: total, sha256: digest.digest("hex") });
    }
  });
}

function serve() {
  const server = tls.createServer({
    ...credentials(),
    requestCert: true,
    rejectUnauthorized: true,
    sessionIdContext: "qbitel-interop",
  });
  server.on("secureConnection", (socket) => {
    say("connected", facts(socket));
    socket.on("error", (error) => say("error", { code: error.code }));
    echo(socket);
  });
  server.on("tlsClientError", (error) => say("error", { code: error.code }));
  server.listen(0, "127.0.0.1", () => say("listening", { port: server.address().port }));
}

// The bytes are a keystream, so that nothing between the two ends can guess or shrink them.
function* pieces(total) {
  const stream = crypto.createCipheriv("aes-256-ctr", crypto.randomBytes(32), crypto.randomBytes(16));
  for (let left = total; left > 0; left -= 65536) yield stream.update(Buffer.alloc(Math.min(left, 65536)));
}

function connect(remaining, session) {
  let saved = null;
  let received = 0;
  const sent = crypto.createHash("sha256");
  const digest = crypto.createHash("sha256");
  const socket = tls.connect({
    ...credentials(),
    host: "127.0.0.1",
    port: options.port,
    session,
    checkServerIdentity: () => undefined, // the identity is a URI; the test looks at it
  });
  socket.on("session", (ticket) => { saved = ticket; });
  socket.on("error", (error) => say("error", { code: error.code }));
  socket.on("secureConnect", () => {
    say("connected", facts(socket));
    if (options.silent) return; // for refusals: nothing of ours is under way that could turn an alert into a reset
    const header = Buffer.alloc(HEADER);
    header.writeBigUInt64BE(BigInt(options.bytes));
    socket.write(header);
    const source = pieces(options.bytes);
    const pump = () => {
      for (let piece = source.next(); !piece.done; piece = source.next()) {
        sent.update(piece.value);
        if (!socket.write(piece.value)) {
          socket.once("drain", pump);
          return;
        }
      }
    };
    pump();
  });
  socket.on("data", (data) => {
    received += data.length;
    digest.update(data);
  });
  socket.on("end", () => {
    if (received === options.bytes) {
      const [there, back] = [sent.digest("hex"), digest.digest("hex")];
      say(there === back ? "done" : "error", { code: "CHECKSUM", bytes: received, sha256: back });
    } else {
      say("error", { code: "SHORT" });
    }
    socket.end();
  });
  socket.on("close", () => { if (remaining > 1) connect(remaining - 1, saved); });
}

if (options.role === "server") serve();
else connect(options.connections || 1);
