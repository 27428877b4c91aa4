/** Items of data with a score each. */

import { hasNegative, largest } from "../colours";
import { Legend } from "../parts/legend";
import { Sortable } from "../parts/sortable";
import type { ExamplesResult } from "../result";

export function ExamplesView({ result }: { result: ExamplesResult }) {
  const keys = [...new Set(result.items.flatMap((item) => Object.keys(item)))];
  const scored = result.values.length === result.items.length;
  const rows = result.items.map((item, i) => [...(scored ? [result.values[i]] : []), ...keys.map((key) => item[key])]);
  return (
    <>
      {scored && <Legend scale={largest(result.values)} both={hasNegative(result.values)} unit={result.unit} sign="" />}
      <Sortable caption={result.title || "Examples"} columns={[...(scored ? [{ name: result.unit || "score", coloured: true }] : []), ...keys.map((name) => ({ name }))]} rows={rows} />
    </>
  );
}
