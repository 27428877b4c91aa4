/** Two axes: layer by token, layer by head, token by token. The view is one, the axes name its rows and columns. */

import { useEffect, useState } from "preact/hooks";
import { hasNegative, largest } from "../colours";
import { Legend } from "../parts/legend";
import { Matrix } from "../parts/matrix";
import { mark } from "../parts/panel";
import { Folded, Sortable } from "../parts/sortable";
import { names, type Scores, slice } from "../result";
import { at } from "../state";
import { label, spaced } from "../text";
import type { ViewProps } from "./index";

const MOST_ROWS = 20_000;
const TEXT = ["unit", "position", "key", "other_unit"];

export function useSlice(result: Scores, leading: number[]): { values: ArrayLike<number> | null; error: string } {
  const [state, setState] = useState<{ values: ArrayLike<number> | null; error: string }>({
    values: result.values.data === null ? null : syncSlice(result, leading), error: "",
  });
  useEffect(() => {
    if (result.values.data !== null) return setState({ values: syncSlice(result, leading), error: "" });
    const stop = new AbortController();
    slice(result, leading, false, stop.signal)
      .then((values) => setState({ values, error: "" }))
      .catch((error: Error) => !stop.signal.aborted && setState({ values: null, error: error.message }));
    return () => stop.abort();
  }, [result, leading.join()]);
  return state;
}

function syncSlice(result: Scores, leading: number[]): Float64Array {
  const { shape, data } = result.values;
  const rest = shape.slice(leading.length).reduce((a, b) => a * b, 1);
  const first = leading.reduce((start, index, axis) => start * shape[axis]! + index, 0) * rest;
  return data!.subarray(first, first + rest);
}

export function GridView(p: ViewProps<Scores>) {
  const { values, error } = useSlice(p.result, []);
  if (error) return <p class="refused" role="alert">{error}</p>;
  if (values === null) return <p class="quiet" role="status">Fetching the numbers…</p>;
  return <Grid {...p} values={values} axes={[p.result.axes[0]!, p.result.axes[1]!]} leading={[]} />;
}

/** A grid of the last two axes of a result, at one place of its leading axes. */
export function Grid(p: ViewProps<Scores> & { values: ArrayLike<number>; axes: [string, string]; leading: number[]; scale?: number; name?: string }) {
  const { result, values, axes } = p;
  const first = result.axes.length - 2;
  const rows = names(result, axes[0], first);
  const columns = names(result, axes[1], first + 1);
  const scale = p.scale ?? largest(values);
  const size = rows.length * columns.length;
  const start = p.leading.reduce((a, index, axis) => a * result.values.shape[axis]! + index, 0) * size;
  const words = result.words?.slice(start, start + size) ?? null;
  const errors = result.std_error?.data?.subarray(start, start + size) ?? null;
  const both = hasNegative(values);
  const text = TEXT.includes(axes[1]);
  const byPosition = axes[1] === "position" || axes[1] === "key";
  const pick = (row: number, column: number) => {
    if (p.onCell) p.onCell(result.axes, [...p.leading, row, column]);
    else if (byPosition) mark(at.value === column ? null : column);
  };
  const own = p.selected && p.selected.length === p.leading.length + 2 && p.leading.every((value, i) => value === p.selected![i]);
  return (
    <>
      <Matrix name={p.name ?? `${spaced(axes[0])} by ${spaced(axes[1])}`} rows={rows} columns={columns} rowAxis={spaced(axes[0])} columnAxis={spaced(axes[1])}
        values={values} scale={scale} words={words} error={errors} signed={both} marked={byPosition ? at.value : null}
        selected={own ? [p.selected!.at(-2)!, p.selected!.at(-1)!] : null} {...(p.onCell || text ? { onPick: pick } : {})} />
      <Legend scale={scale} both={both} unit={result.unit} sign={result.sign} />
      <Folded summary={`${size.toLocaleString("en")} numbers`}>
        {() => {
          const strongest = size > MOST_ROWS ? threshold(values, MOST_ROWS) : -1;
          const list: unknown[][] = [];
          for (let i = 0; i < size && list.length < MOST_ROWS; i++) {
            if (Math.abs(values[i]!) < strongest) continue;
            const [row, column] = [Math.floor(i / columns.length), i % columns.length];
            list.push([rows[row], columns[column], Number.isNaN(values[i]!) ? null : values[i], ...(errors ? [errors[i]] : []), ...(words ? [label(words[i])] : [])]);
          }
          const heads = [{ name: axes[0] }, { name: axes[1] }, { name: result.unit || "value", coloured: true }, ...(errors ? [{ name: "std. error" }] : []), ...(words ? [{ name: "word" }] : [])];
          return (
            <>
              {list.length < size && <p class="quiet">The {list.length.toLocaleString("en")} strongest of them.</p>}
              <Sortable caption="All values" columns={heads} rows={list} />
            </>
          );
        }}
      </Folded>
    </>
  );
}

function threshold(values: ArrayLike<number>, count: number): number {
  const sizes = Float64Array.from(values, Math.abs).sort();
  return sizes[sizes.length - count]!;
}
