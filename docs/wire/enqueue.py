#!/usr/bin/env python3
"""Enqueues a Cardcage task over NATS and waits for its outcome, by nothing but the documented wire format.

    enqueue.py --url nats://127.0.0.1:4222 hello 0.1.0 echo '{"n": 1}'

Prints the task's final record as JSON. Exits 0 if the task succeeded, 1 if it ended otherwise, 75 if it has not ended
within --wait seconds. Running it again with the same --id enqueues nothing twice: the broker remembers a message id for
two minutes, and after that the record says that the task has ended.

Needs nats-py (pip install nats-py).
"""

import argparse
import asyncio
import json
import os
import sys
import time
from datetime import datetime, timedelta, timezone

import nats
from nats.errors import TimeoutError as NatsTimeout
from nats.js.errors import NotFoundError

FINAL = {"succeeded", "failed", "cancelled", "expired"}


def uuid7() -> str:
    """A UUID version 7: 48 bits of milliseconds, then random ones."""
    value = int(time.time() * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def rfc3339(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


async def enqueue(js, args, task_id: str):
    """Publishes the envelope. Only the broker's acknowledgement is a promise; without it, publish again under the same id."""
    now = datetime.now(timezone.utc)
    major = args.version.split(".")[0]
    subject = f"{args.namespace}.task.{args.plugin}.v{major}.{args.task}.p5.{task_id}"
    headers = {
        "Cardcage-Envelope-Version": "1",
        "Cardcage-Task-Id": task_id,
        "Cardcage-Plugin": args.plugin,
        "Cardcage-Version": args.version,
        "Cardcage-Task": args.task,
        "Cardcage-Attempt": "1",
        "Cardcage-Enqueued-At": rfc3339(now),
        # Stored later than this, it is dropped: by then nobody waits for the acknowledgement any more.
        "Cardcage-Accept-By": rfc3339(now + timedelta(seconds=args.accept_within)),
        # A second publish of the same attempt is reported as a duplicate, and stored once.
        "Nats-Msg-Id": f"{task_id}.1",
    }
    if args.traceparent:
        headers["traceparent"] = args.traceparent
    stream = f"{args.namespace}_TASKS_{args.plugin}"
    return await js.publish(
        subject, args.body.encode(), timeout=args.accept_within, stream=stream, headers=headers
    )


async def record(js, args, task_id: str):
    """The task's record, or None before the first one is written."""
    try:
        found = await js.get_last_msg(
            f"{args.namespace}_STATE", f"{args.namespace}.state.{task_id}", direct=True
        )
    except NotFoundError:
        return None
    return json.loads(found.data)


async def main(args) -> int:
    task_id = args.id or uuid7()
    client = await nats.connect(args.url)
    try:
        js = client.jetstream()
        # Listen first: a record that is stored in between is then either heard or read.
        heard = await client.subscribe(f"{args.namespace}.done.{task_id}")
        stored = await enqueue(js, args, task_id)
        print(f"task {task_id}: {'already stored' if stored.duplicate else 'stored'}", file=sys.stderr)
        until = time.monotonic() + args.wait
        while True:
            known = await record(js, args, task_id)
            if known and known["state"] in FINAL:
                print(json.dumps(known))
                return 0 if known["state"] == "succeeded" else 1
            left = until - time.monotonic()
            if left <= 0:
                print(f"task {task_id} has not ended within {args.wait} s", file=sys.stderr)
                return 75
            try:
                # What is heard is only a reason to read: the record is the truth.
                await heard.next_msg(timeout=min(left, 5))
            except NatsTimeout:
                pass
    finally:
        await client.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Enqueues a Cardcage task and waits for its outcome.")
    parser.add_argument("--url", default="nats://127.0.0.1:4222")
    parser.add_argument("--namespace", default="cardcage")
    parser.add_argument("--id", help="the task's id, a UUID version 7; a new one without it")
    parser.add_argument("--traceparent", help="W3C trace context")
    parser.add_argument("--accept-within", type=float, default=2.0, help="seconds for the broker's acknowledgement")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds for the outcome")
    parser.add_argument("plugin")
    parser.add_argument("version", help="the plugin's version, such as 1.2.3")
    parser.add_argument("task")
    parser.add_argument("body", help="the task's JSON")
    sys.exit(asyncio.run(main(parser.parse_args())))
