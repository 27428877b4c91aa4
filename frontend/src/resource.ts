/** Something fetched once per key, with its error; a new key stops the old request. */

import { useEffect, useState } from "preact/hooks";

export interface Resource<Value> {
  value: Value | null;
  error: string;
  loading: boolean;
  again: () => void;
}

export function useResource<Value>(key: string | null, fetcher: (signal: AbortSignal) => Promise<Value>): Resource<Value> {
  const [state, setState] = useState<{ key: string | null; value: Value | null; error: string }>({ key: null, value: null, error: "" });
  const [tries, setTries] = useState(0);
  useEffect(() => {
    if (key === null) return;
    const stop = new AbortController();
    fetcher(stop.signal)
      .then((value) => !stop.signal.aborted && setState({ key, value, error: "" }))
      .catch((error: Error) => !stop.signal.aborted && setState({ key, value: null, error: error.message }));
    return () => stop.abort();
  }, [key, tries]);
  const fresh = state.key === key;
  return {
    value: key === null ? null : state.value, error: fresh ? state.error : "", loading: key !== null && !fresh,
    again: () => {
      setState({ key: null, value: null, error: "" });
      setTries(tries + 1);
    },
  };
}
