/** Two questions side by side: another prompt, another model, or the same model without its edits. */

import { useEffect, useState } from "preact/hooks";
import * as api from "../api";
import { Answered, MethodSelect } from "../parts/ask";
import { Bars } from "../parts/bars";
import { given, methodsOf, models, question } from "../question";
import { useResource } from "../resource";
import { type Edit, type Message, setView, state, update } from "../state";
import { label, methodName } from "../text";

interface Side {
  title: string;
  model: string;
  prompt: string | Message[];
  edits: Edit[];
}

function Column({ side, method }: { side: Side; method: string }) {
  const found = methodsOf("attribution").find((one) => one.name === method);
  const read = useResource(JSON.stringify(side), (stop) => api.read(side.model, side.prompt, side.edits, { top: 6 }, stop));
  const target = given(state.value.target);
  const asked = found && question("explain", { methods: [method] }, { model: side.model, prompt: side.prompt });
  if (asked) {
    if (side.edits.length > 0) asked.edits = side.edits;
    else delete asked.edits;
  }
  return (
    <div class="column">
      <h3>{side.title}</h3>
      <p class="quote" dir="auto">{label(typeof side.prompt === "string" ? side.prompt : side.prompt.map((one) => one.content).join(" / "), 300)}</p>
      {read.error ? <p class="refused" role="alert">{label(read.error, 600)}</p>
        : read.value ? <Bars name={`Next tokens: ${side.title}`} items={read.value.predictions} target={typeof target === "number" ? target : undefined} /> : <p class="quiet" role="status">Reading…</p>}
      {asked && !read.error && <Answered question={asked} heading={methodName(method)} />}
    </div>
  );
}

export function CompareTab() {
  const s = state.value;
  const [draft, setDraft] = useState(s.other);
  useEffect(() => setDraft(s.other), [s.other]);
  const methods = methodsOf("attribution").filter((one) => one.axes.join() === "unit");
  const method = s.view.compare ?? methods.find((one) => one.name === "integrated_gradients")?.name ?? methods[0]?.name ?? "";
  const kind = s.view.against ?? (s.other ? "prompt" : s.otherModel ? "model" : s.edits.length > 0 ? "edits" : "prompt");
  const here: Side = { title: s.edits.length > 0 ? "With the edits" : "This one", model: s.model, prompt: s.prompt, edits: s.edits };
  const there: Side | null = kind === "edits" ? (s.edits.length > 0 ? { ...here, title: "Without the edits", edits: [] } : null)
    : kind === "model" ? (s.otherModel ? { ...here, title: s.otherModel, model: s.otherModel } : null)
    : s.other ? { ...here, title: "The other prompt", prompt: s.other } : null;
  return (
    <>
      <div class="chooser">
        <label class="unit">Compare with
          <select value={kind} onChange={(event) => setView("against", event.currentTarget.value)}>
            <option value="prompt">another prompt</option>
            <option value="model" disabled={models.value.length < 2}>another model</option>
            <option value="edits" disabled={s.edits.length === 0}>the model without its edits</option>
          </select>
        </label>
        <label class="unit">by <MethodSelect label="Method" methods={methods} value={method} onPick={(name) => setView("compare", name)} /></label>
      </div>
      {kind === "prompt" && (
        <form class="other" onSubmit={(event) => {
          event.preventDefault();
          update({ other: draft });
        }}>
          <label for="compare-prompt">The other prompt</label>
          <div class="row">
            <input id="compare-prompt" type="text" dir="auto" spellcheck={false} value={draft} onInput={(event) => setDraft(event.currentTarget.value)} placeholder={typeof s.prompt === "string" ? s.prompt : ""} />
            <button type="submit" class={draft !== s.other ? "primary" : ""} disabled={draft === s.other}>Compare</button>
          </div>
        </form>
      )}
      {kind === "model" && (
        <label class="unit">The other model
          <select value={s.otherModel} onChange={(event) => update({ otherModel: event.currentTarget.value })}>
            <option value="">choose one</option>
            {models.value.filter((one) => one.id !== s.model).map((one) => <option key={one.id} value={one.id}>{one.name}</option>)}
          </select>
        </label>
      )}
      {kind === "edits" && s.edits.length === 0 && <p class="hint">There are no edits yet: keep one on the Patch tab.</p>}
      {there && <div class="columns"><Column side={here} method={method} /><Column side={there} method={method} /></div>}
    </>
  );
}
