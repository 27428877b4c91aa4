/** A question on its way: place in the queue, progress with estimate, cancel; then the answer, or why there is none. */

import type { Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { type Answer, cancel } from "../jobs";
import type { Result } from "../result";
import { label, seconds } from "../text";

export function Working(p: { entry: Signal<Answer>; again: () => void; children: (result: Result) => ComponentChildren }) {
  const { state, job, result, error } = p.entry.value;
  if (state === "done" && result !== null) return <>{p.children(result)}</>;
  if (state === "failed") {
    return (
      <div class="refused" role="alert">
        <p>{label(error || "It did not work, and the server did not say why.", 1000)}</p>
        <button type="button" onClick={p.again}>Try again</button>
      </div>
    );
  }
  if (state === "cancelled") {
    return (
      <div class="refused">
        <p>Cancelled. Nothing was changed.</p>
        <button type="button" onClick={p.again}>Ask again</button>
      </div>
    );
  }
  const share = job?.fraction ?? (job?.total ? Math.min(1, (job.done ?? 0) / job.total) : null);
  const before = job?.place ?? 0;
  const words = state === "queued" ? (before > 0 ? `Waiting for ${before} other${before === 1 ? "" : "s"}` : "Next in the queue")
    : state === "asking" ? "Asking" : job?.message || "Working";
  const expected = job?.estimate && !job.seconds ? ` · expected to take ${seconds(job.estimate.seconds)}` : "";
  return (
    <div class="working" role="status">
      <progress aria-label={words} max={1} {...(share === null ? {} : { value: share })} />
      <p>
        {label(words, 200)}
        {job?.seconds ? ` · ${seconds(job.seconds)}` : ""}
        {job?.remaining ? ` · about ${seconds(job.remaining)} left` : expected}
      </p>
      <button type="button" onClick={() => void cancel(p.entry)}>Cancel</button>
    </div>
  );
}
