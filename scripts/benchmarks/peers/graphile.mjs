// graphile-worker (Node): the commands of inside.py and the files of recorder.py.
import { createRequire } from "module";
import fs from "fs";
import path from "path";
const require = createRequire(process.env.BENCH_NODE_MODULES + "/x.js");
const gw = require("graphile-worker");
const { Pool } = require("pg");

const [, command, ...rest] = process.argv.slice(2);
const opt = { n: 0, clients: 1, kind: "noop", rate: 1000, concurrency: 100 };
for (let k = 0; k < rest.length; k += 2) {
  const name = rest[k].slice(2);
  opt[name] = name === "kind" ? rest[k + 1] : Number(rest[k + 1]);
}
const dsn = process.env.BENCH_DSN;
const mono = () => Number(process.hrtime.bigint()) / 1e9;
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));

class Recorder {
  constructor(role) {
    this.slots = Number(process.env.BENCH_SLOTS);
    this.fd = fs.openSync(path.join(process.env.BENCH_RECORDS, `${role}-${process.pid}.rec`), "w+");
    fs.ftruncateSync(this.fd, 64 + this.slots * 16);
    this.hdr = new Float64Array(8);
    this.hdr[4] = this.slots;
    this.runs = new Uint32Array(this.slots);
    this.ends = new Uint32Array(this.slots);
    this.f8 = new Float64Array(1);
    this.u4 = new Uint32Array(1);
  }
  start(i) {
    const t = mono();
    if (!this.runs[i]) { this.f8[0] = t; fs.writeSync(this.fd, new Uint8Array(this.f8.buffer), 0, 8, 64 + i * 8); }
    this.u4[0] = ++this.runs[i];
    fs.writeSync(this.fd, new Uint8Array(this.u4.buffer), 0, 4, 64 + this.slots * 8 + i * 4);
    this.hdr[0]++;
    if (!this.hdr[1]) this.hdr[1] = t;
    this.hdr[2] = t;
    fs.writeSync(this.fd, new Uint8Array(this.hdr.buffer), 0, 64, 0);
  }
  end(i) {
    this.u4[0] = ++this.ends[i];
    fs.writeSync(this.fd, new Uint8Array(this.u4.buffer), 0, 4, 64 + this.slots * 12 + i * 4);
    this.hdr[3]++;
  }
}
const recs = {};
const rec = (role = "run") => (recs[role] ??= new Recorder(role));
const done = (o) => console.log("\nANSWER " + JSON.stringify(o));

const preset = { worker: { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0, maxPoolSize: 10 } };
async function gatherLimited(from, to, limit, fn) {
  let next = from;
  await Promise.all(Array.from({ length: limit }, async () => { while (next < to) await fn(next++); }));
}
const logger = new gw.Logger(() => () => {});

if (command === "describe") {
  done({
    distribution: "graphile-worker", version: require("graphile-worker/package.json").version, python: "Node " + process.version,
    configuration: "localQueue.size=500, completeJobBatchDelay=0, concurrentJobs=100, pool of 10 (its fastest documented settings)",
    bulk: "`addJobs`, 1,000 a call",
    pending: "select exists (select from graphile_worker._private_jobs)",
    done: null,
    supervised: false,
  });
} else if (command === "setup") {
  await gw.runMigrations({ connectionString: dsn, logger });
  const u = await gw.makeWorkerUtils({ connectionString: dsn, logger });
  await u.addJob("noop", { task: 0 });
  await u.withPgClient((c) => c.query("delete from graphile_worker._private_jobs"));
  await u.release();
  done({});
} else if (command === "worker") {
  const task = (ms) => async (p) => { rec().start(p.task); if (ms) await sleep(ms); rec().end(p.task); };
  const runner = await gw.run({
    connectionString: dsn, logger, noHandleSignals: true, taskList: { noop: task(0), nap: task(10) },
    preset: { worker: { ...preset.worker, concurrentJobs: opt.concurrency } },
  });
  await runner.promise;
} else {
  const pool = new Pool({ connectionString: dsn, max: command === "paced" ? 16 : Math.max(2, opt.clients) });
  const u = await gw.makeWorkerUtils({ pgPool: pool, logger });
  if (command === "enqueue") {
    const warm = 4 * opt.clients;
    await gatherLimited(0, warm, opt.clients, (i) => u.addJob(opt.kind, { task: i }));
    const t = mono();
    await gatherLimited(warm, warm + opt.n, opt.clients, (i) => u.addJob(opt.kind, { task: i }));
    const s = mono() - t;
    done({ total: opt.n + warm, seconds: s, rate: opt.n / s });
  } else if (command === "bulk") {
    const t = mono();
    for (let lo = 0; lo < opt.n; lo += 1000) {
      const part = [];
      for (let i = lo; i < Math.min(lo + 1000, opt.n); i++) part.push({ identifier: opt.kind, payload: { task: i } });
      await u.addJobs(part);
    }
    const s = mono() - t;
    done({ total: opt.n, seconds: s, rate: opt.n / s });
  } else if (command === "calm") {
    const r = rec("enqueue");
    for (let i = 0; i < opt.n; i++) {
      const t = mono();
      r.start(i);
      await u.addJob("noop", { task: i });
      await sleep(Math.max(0, 50 - (mono() - t) * 1000));
    }
    done({});
  } else if (command === "paced") {
    const r = rec("enqueue");
    const t0 = mono() + 0.2, running = new Set();
    for (let i = 0; i < opt.n; i++) {
      const due = t0 + i / opt.rate;
      while (mono() < due) await sleep(Math.max(0, (due - mono()) * 1000 - 0.5));
      while (running.size >= 64) await Promise.race(running);
      r.start(i);
      r.f8[0] = due;
      fs.writeSync(r.fd, new Uint8Array(r.f8.buffer), 0, 8, 64 + i * 8);
      const p = u.addJob(opt.kind, { task: i }).finally(() => running.delete(p));
      running.add(p);
    }
    await Promise.all(running);
    const s = mono() - t0;
    done({ rate: opt.n / s });
  }
  await u.release();
  await pool.end();
}
