/** The prompt with each unit on its colour; every panel marks the same token. */

import { useEffect, useMemo, useRef } from "preact/hooks";
import { hasNegative, largest, shade } from "../colours";
import { Legend } from "../parts/legend";
import { mark } from "../parts/panel";
import { Folded, Sortable } from "../parts/sortable";
import { names, type Scores, segments, spanOf } from "../result";
import { at } from "../state";
import { exact, flow, label, MISSING, rightToLeft } from "../text";
import type { ViewProps } from "./index";

const OPEN_ROWS = 0;

function say(result: Scores, index: number): string {
  const error = result.std_error?.data?.[index];
  return exact(result.values.data![index]!) + (error === undefined ? "" : ` ± ${exact(error).replace("+", "")}`);
}

/** The text itself: drawn once per result; what is marked is set on the elements, so a click costs nothing. */
export function TokenText({ result, scale }: { result: Scores; scale: number }) {
  const box = useRef<HTMLDivElement>(null);
  const readout = useRef<HTMLParagraphElement>(null);
  const pieces = useMemo(() => segments(result), [result]);
  const spans = useMemo(() => Array.from({ length: result.values.shape[0]! }, (_, i) => spanOf(result, i)), [result]);
  const name = useMemo(() => names(result, result.axes[0]!), [result]);
  const prefix = useMemo(() => `t${Math.random().toString(36).slice(2, 8)}`, []);
  const marked = useRef<HTMLElement | null>(null);
  const position = at.value;

  const entry = position === null ? -1 : spans.findIndex(([start, end]) => start <= position && position < end);
  useEffect(() => {
    marked.current?.removeAttribute("aria-selected");
    const element = entry < 0 ? null : document.getElementById(`${prefix}-${entry}`);
    element?.setAttribute("aria-selected", "true");
    marked.current = element;
    if (entry >= 0) box.current?.setAttribute("aria-activedescendant", `${prefix}-${entry}`);
    else box.current?.removeAttribute("aria-activedescendant");
    show(entry);
  }, [entry, result]);

  const show = (index: number) => {
    if (readout.current) readout.current.textContent = index < 0 ? "" : `${name[index]}: ${say(result, index)}`;
  };
  const over = (event: Event): number => {
    const element = (event.target as HTMLElement).closest<HTMLElement>("[data-i]");
    return element === null ? -1 : Number(element.dataset.i);
  };
  const go = (index: number) => mark(spans[Math.max(0, Math.min(spans.length - 1, index))]![0]);
  const key = (event: KeyboardEvent) => {
    const forward = rightToLeft(pieces[0]?.text ?? "") ? -1 : 1;
    const step = { ArrowRight: forward, ArrowLeft: -forward, ArrowDown: 8, ArrowUp: -8 }[event.key];
    if (step !== undefined) go(entry < 0 ? (step > 0 ? 0 : spans.length - 1) : entry + step);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(spans.length - 1);
    else if (event.key === "Escape") mark(null);
    else return;
    event.preventDefault();
  };
  const text = useMemo(() => pieces.map(({ text, index, special }, i) => {
    const shown = flow(text);
    if (index === null && special) return <bdi key={i} class="s">{shown}</bdi>; // it must not set the direction
    if (index === null) return text.trim() ? <span key={i} class="s">{shown}</span> : shown;
    const value = result.values.data![index]!;
    const attributes = {
      key: i, id: `${prefix}-${index}`, "data-i": index, role: "option" as const, class: shade(value, scale), title: say(result, index),
      "aria-label": `${name[index]}, ${say(result, index)}`,
    };
    return special ? <bdi {...attributes}>{shown || MISSING}</bdi> : <span {...attributes}>{shown || MISSING}</span>;
  }), [result, scale]);
  return (
    <>
      <div ref={box} class={`tokens ${pieces.some((piece) => rightToLeft(piece.text)) ? "rtl" : ""}`} dir="auto" role="listbox" tabIndex={0}
        aria-label="The prompt, each part coloured by its score. Arrow keys move."
        onPointerOver={(event) => show(over(event) < 0 ? entry : over(event))} onPointerLeave={() => show(entry)}
        onClick={(event) => {
          const index = over(event);
          if (index >= 0) mark(index === entry ? null : spans[index]![0]);
        }}
        onKeyDown={key}>
        {text}
      </div>
      <p class="readout" ref={readout} aria-live="polite" dir="auto" />
    </>
  );
}

export function TokenScoresView({ result }: ViewProps<Scores>) {
  const values = result.values.data;
  if (values === null) return <p class="quiet">This result is too long for a text of coloured parts; download it as CSV.</p>;
  const scale = largest(values);
  return (
    <>
      <TokenText result={result} scale={scale} />
      <Legend scale={scale} both={hasNegative(values)} unit={result.unit} sign={result.sign} />
      <ScoreTable result={result} open={values.length <= OPEN_ROWS} />
    </>
  );
}

/** All numbers of one axis, to be sorted. */
export function ScoreTable({ result, open }: { result: Scores; open: boolean }) {
  const values = result.values.data!;
  const axis = result.axes[0]!;
  const error = result.std_error?.data;
  return (
    <Folded summary={`${values.length.toLocaleString("en")} numbers`} open={open}>
      {() => {
        const labels = names(result, axis);
        const columns = [{ name: "#" }, { name: axis }, { name: result.unit || "value", coloured: true }, ...(error ? [{ name: "std. error" }] : []), ...(result.words ? [{ name: "word" }] : [])];
        const rows = Array.from(values, (value, i) => [
          i, labels[i], Number.isNaN(value) ? null : value, ...(error ? [error[i]] : []), ...(result.words ? [label(result.words[i])] : []),
        ]);
        return <Sortable caption={`Values by ${axis}`} columns={columns} rows={rows} />;
      }}
    </Folded>
  );
}
