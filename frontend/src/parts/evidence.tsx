/** What supports a picture, in plain words beside it: each check with its verdict, its numbers and its curves. */

import type { Evidence as Check, Result } from "../result";
import { fourDigits, label, methodName, plain, spaced } from "../text";
import { Curve, seriesOf } from "./curve";
import { Folded, Sortable } from "./sortable";

function numbers(check: Check) {
  const entries = Object.entries(check.values);
  const pairs = entries.map(([name]) => name.split(" ~ "));
  if (entries.length > 1 && pairs.every((pair) => pair.length === 2)) {
    const sides = [...new Set(pairs.flat())];
    const value = (a: string, b: string) => check.values[`${a} ~ ${b}`] ?? check.values[`${b} ~ ${a}`] ?? null;
    return (
      <Sortable caption={check.name} columns={[{ name: "method" }, ...sides.map((side) => ({ name: methodName(side) }))]}
        rows={sides.map((a) => [methodName(a), ...sides.map((b) => (a === b ? "–" : (value(a, b) === null ? "–" : fourDigits(value(a, b)!))))])} />
    );
  }
  if (entries.length === 0) return null;
  return (
    <dl class="numbers">
      {entries.map(([name, value]) => <div key={name}><dt>{label(spaced(name).replace(" ~ ", " and "))}</dt><dd>{fourDigits(value)}</dd></div>)}
    </dl>
  );
}

export function EvidenceList(p: { checks: Check[] }) {
  return (
    <>
      {p.checks.map((check, i) => {
        const drawn = seriesOf(check.curves);
        return (
          <div class={`evidence ${drawn.lines.length ? "drawn" : ""}`} key={i}>
            <div>
              <p>
                {check.ok !== null && <span class={check.ok ? "good" : "short"}>{check.ok ? "✓ ok" : "✗ short"}</span>}
                <b>{methodName(check.name)}.</b> {label(check.summary, 2000)}
              </p>
              {numbers(check)}
            </div>
            {drawn.lines.length > 0 && <Curve name={check.name} x={drawn.x} lines={drawn.lines} xName={check.name.includes("deletion") ? "share of units removed" : ""} />}
          </div>
        );
      })}
    </>
  );
}

export function Computed(p: { result: Result }) {
  const v = p.result.provenance;
  const given = v as Record<string, unknown>;
  const facts: [string, string][] = [
    ["Method", v.method], ["Paper", v.paper], ["Model", v.model], ["Revision", plain(given.revision)],
    ["Edits", ((given.edits as string[] | undefined) ?? []).join("; ")], ["Number type", plain(given.dtype)], ["Device", plain(given.device)],
    ["Seed", plain(given.seed)], ["Time", v.seconds ? `${fourDigits(v.seconds)} s` : ""],
    ["Passes", v.forwards || v.backwards ? `${v.forwards} forward, ${v.backwards} backward` : ""],
    ...Object.entries(v.parameters ?? {}).map(([name, value]): [string, string] => [`${name} =`, value === null ? "none" : plain(value)]),
  ];
  return (
    <Folded summary="How it was computed">
      {() => (
        <dl>
          {facts.filter(([, text]) => text !== "").map(([name, text]) => <div key={name}><dt>{label(name)}</dt><dd>{label(text, 400)}</dd></div>)}
        </dl>
      )}
    </Folded>
  );
}
