/** An explanation: each method alone, all side by side in numbers, and the evidence between them. */

import { Panel } from "../parts/panel";
import { EvidenceList } from "../parts/evidence";
import { Folded, Sortable } from "../parts/sortable";
import { type Explanation, names, type Result, type Scores } from "../result";
import { label, methodName } from "../text";
import type { ViewProps } from "./index";

function alike(results: Result[]): Scores[] {
  const scores = results.filter((one): one is Scores => one.kind === "Scores" && one.axes.length === 1 && one.values.data !== null);
  const first = scores[0];
  return first ? scores.filter((one) => one.axes[0] === first.axes[0] && one.values.shape[0] === first.values.shape[0]) : [];
}

export function ExplanationView(p: ViewProps<Explanation>) {
  const { result } = p;
  const together = alike(result.results);
  const known = (inner: Result) => (inner.kind === "Scores" && inner.target === result.target ? { ...inner, target: "" } : inner);
  return (
    <>
      {result.continuation && <p class="prose" dir="auto">{result.continuation}</p>}
      <div class={result.results.length > 1 ? "side-by-side" : ""}>
        {result.results.map((inner, i) => (
          <Panel key={i} result={known(inner)} heading={methodName(inner.provenance.method || inner.kind)} actions={false} level={3} />
        ))}
      </div>
      {result.evidence.length > 0 && (
        <section class="panel">
          <header><h3>Do they agree?</h3></header>
          <EvidenceList checks={result.evidence} />
        </section>
      )}
      {together.length > 1 && (
        <Folded summary="All methods in one table">
          {() => (
            <Sortable caption="Methods side by side" columns={[{ name: "#" }, { name: together[0]!.axes[0]! }, ...together.map((one) => ({ name: methodName(one.provenance.method), coloured: true }))]}
              rows={names(together[0]!, together[0]!.axes[0]!).map((name, i) => [i, name, ...together.map((one) => one.values.data![i])])} />
          )}
        </Folded>
      )}
      {result.notes.length > 0 && <ul class="notes">{result.notes.map((note) => <li key={note}>{label(note, 1000)}</li>)}</ul>}
    </>
  );
}
