"""bench/compare: ratios, geometric mean, noise, and one clear sentence for files that cannot be compared."""

import json
import pathlib
import subprocess
import sys
import tempfile

COMPARE = sys.argv[1]
problems = []


def check(fact, what):
    if not fact:
        problems.append(what)


def google(times, unit="us"):
    """A result file: {name: [repetitions]}."""
    return json.dumps({"context": {}, "benchmarks": [
        {"name": name, "run_name": name, "run_type": "iteration", "real_time": t, "cpu_time": 2 * t, "time_unit": unit}
        for name, repetitions in times.items() for t in repetitions]})


def aggregates(name, median, mean, stddev):
    return json.dumps({"benchmarks": [
        {"name": f"{name}_{kind}", "run_name": name, "run_type": "aggregate", "aggregate_name": kind, "time_unit": "ms",
         "aggregate_unit": unit, "real_time": value, "cpu_time": value}
        for kind, value, unit in (("mean", mean, "time"), ("median", median, "time"), ("stddev", stddev, "time"),
                                  ("cv", 7.0, "percentage"))]})


def line(ms, **other):
    return json.dumps({"phase": "infer", "arch": "resnet50", "batch": 32, "ms_per_step": ms, **other})


def run(folder, old, new, *flags):
    for name, text in (("old", old), ("new", new)):
        (folder / name).write_text(text, encoding="utf-8")
    return subprocess.run([sys.executable, "-B", COMPARE, folder / "old", folder / "new", *flags],
                          capture_output=True, text=True, check=False)


def results(folder, old, new, *flags):
    done = run(folder, old, new, "--json", *flags)
    if done.returncode != 0:
        problems.append(f"exit {done.returncode}: {done.stderr}")
        return {"benchmarks": [], "geometric_mean": None}
    return json.loads(done.stdout)


def near(a, b):
    return a is not None and abs(a - b) < 1e-9 * max(1.0, abs(b))


def check_ratios(folder):
    r = results(folder, google({"a": [9, 10, 12], "b": [8], "gone": [1]}),
                google({"b": [4000], "a": [5000, 5000, 5000], "fresh": [1]}, "ns"))
    by_name = {row["name"]: row for row in r["benchmarks"]}
    check(set(by_name) == {"a", "b"}, f"compares what both have: {set(by_name)}")
    check(near(by_name["a"]["ratio"], 2), "the ratio is that of the medians, in one unit")
    check(near(by_name["b"]["ratio"], 2), "a single repetition has a ratio")
    check(by_name["b"]["noise"] is None, "the noise of a single repetition is unknown")
    check(near(by_name["a"]["noise"], (7 / 3) ** 0.5 / (31 / 3)), "noise is the relative standard deviation")
    r = results(folder, google({"a": [8], "b": [1]}), google({"a": [1], "b": [2]}))
    check(near(r["geometric_mean"], 2), "the geometric mean of 8 and 1/2 is 2")
    r = results(folder, aggregates("a", 4.0, 5.0, 0.5), aggregates("a", 2.0, 2.0, 0.0))
    check(near(r["benchmarks"][0]["ratio"], 2), "aggregates stand for their repetitions")
    check(near(r["benchmarks"][0]["noise"], 0.1), "noise comes from the aggregates when they are all there is")
    r = results(folder, line(8, isa="avx2") + "\n" + line(10) + "\n" + line(9) + "\n", line(3, isa="amx") + "\n")
    check(near(r["benchmarks"][0]["ratio"], 3), "lines of nibble bench are repetitions of each other, on any level")


def check_pairs(folder):
    """What is another measurement is not paired, and what stands for no code of ours does not count in the mean."""
    def pairs(old, new):
        return [row["ratio"] for row in results(folder, old, new)["benchmarks"]]
    both = line(8, classes=1000, shard=32, per_channel_by="fold") + "\n" + line(1, classes=10) + "\n" + \
        line(4, per_channel_by="shift") + "\n"
    check(sorted(pairs(both, both.replace(": 8,", ": 4,"))) in ([1, 1, 2], [1.0, 1.0, 2.0]), "each option is a row")
    check(pairs(both, line(2)) == [4], "a line that does not say its options has the usual ones")
    done = run(folder, line(8) + "\n" + line(4, peer="openvino"), line(1))
    check(done.returncode == 2 and "old:2 is of openvino" in done.stderr and "a file of its own" in done.stderr,
          f"a peer's line is not a repetition of ours: {done.stderr}")
    names = {"forward/a": [8], "forward/network": [100], "onednn/forward/a": [100]}
    r = results(folder, google(names), google({name: [1] for name in names}))
    check(near(r["geometric_mean"], 8), "sums and peers are left out of the mean")
    parts = {"backward/a": [8], "backward-data/a": [100], "backward-weights/a": [100]}
    r = results(folder, google(parts), google({name: [1] for name in parts}))
    check(near(r["geometric_mean"], 8), "parts of rows are left out of the mean")
    done = run(folder, line(8, same_padding=True), line(2))
    check(done.returncode == 2 and "no benchmark in common" in done.stderr, "another padding is another network")
    done = run(folder, line(8, cpu="A"), line(4, cpu="B"))
    check(done.returncode == 0 and "cpu was A and is B" in done.stderr, f"another machine is named: {done.stderr}")
    check(run(folder, line(8, cpu="A"), line(4, cpu="A")).stderr == "", "the same machine is not")
    other = json.loads(google({"a": [1]}))
    other["context"] = None
    check(run(folder, json.dumps(other), google({"a": [1]})).returncode == 0, "a file may say nothing of its machine")
    other["context"] = {"threads": "1", "isa": "amx"}
    one = json.dumps(other)
    other["context"] = {"threads": "2", "isa": "avx2"}  # levels are compared
    done = run(folder, one, json.dumps(other))
    check(done.returncode == 0 and done.stderr.count("\n") == 1 and "threads was 1 and is 2" in done.stderr,
          f"another number of threads is named: {done.stderr}")
    check(run(folder, one, one).stderr == "", "equal contexts are not")


def check_table(folder):
    text = run(folder, google({"fast": [10, 10.1], "slow": [1, 1.01], "same": [1, 1.2], "one": [1]}),
               google({"fast": [5, 5.1], "slow": [2, 2.01], "same": [1.1, 1.2], "one": [2], "fresh": [1]})).stdout
    for name, mark in (("fast", "faster"), ("slow", "slower"), ("same", "~"), ("one", "?")):
        row = next((r for r in text.split("\n") if r.startswith(name + " ")), "")
        check(row.endswith("  " + mark), f"{name} is marked {mark}: '{row}'")
    check("only in the new file (1): fresh" in text, "what one file lacks is named")


def check_refusals(folder):
    good = google({"a": [1]})
    failed = json.dumps({"benchmarks": [{"name": "a", "error_occurred": True}]})
    for old, part in (("{", "is not JSON"), ("", "holds no finished benchmark"),
                      (failed, "holds no finished benchmark"),
                      (google({"z": [1]}), "no benchmark in common"), (google({"a": [0]}), "not a positive number"),
                      ('{"x": 1}', "no ms_per_step"), ('{"benchmarks": [{"name": "a"}]}', "lacks 'real_time'")):
        done = run(folder, old, good)
        check(done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and part in done.stderr,
              f"{old!r} is refused with '{part}', not exit {done.returncode}, '{done.stderr}'")
    done = subprocess.run([sys.executable, "-B", COMPARE, folder / "none", folder / "new"], capture_output=True,
                          text=True, check=False)
    check(done.returncode == 2 and "cannot be read" in done.stderr, "a missing file is refused")


with tempfile.TemporaryDirectory() as name:
    check_ratios(pathlib.Path(name))
    check_pairs(pathlib.Path(name))
    check_table(pathlib.Path(name))
    check_refusals(pathlib.Path(name))
for problem in problems:
    print("bench_compare:", problem)
sys.exit(1 if problems else 0)
