/** Something learned, or a change of weights: its tensors by name and shape, and what it is applied to. */

import { Sortable } from "../parts/sortable";
import type { LearnedResult } from "../result";
import { plain } from "../text";

export function LearnedView({ result }: { result: LearnedResult }) {
  const facts: [string, string][] = [["Applied by", result.apply], ["At", result.site], ...Object.entries(result.settings).map(([k, v]): [string, string] => [k, plain(v)])];
  return (
    <>
      <dl>{facts.filter(([, text]) => text).map(([name, text]) => <div key={name}><dt>{name}</dt><dd>{text}</dd></div>)}</dl>
      <Sortable caption="Tensors" columns={[{ name: "tensor" }, { name: "shape" }]} rows={Object.entries(result.arrays).map(([name, { shape }]) => [name, shape.join(" × ")])} />
    </>
  );
}
