/** An explanation in words. */

import type { TextResult } from "../result";

export function TextView({ result }: { result: TextResult }) {
  return <p class="prose" dir="auto">{result.text}</p>;
}
