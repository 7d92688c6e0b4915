// Command summary reads the output of the benchmarks and prints the costs that
// have a target, each with the ratio that was reached. A target that was missed
// is said and fails nothing: docs/performance.md says why. A measurement that
// is not there fails.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
)

// target is one line of the table.
type target struct {
	what      string
	benchmark string // its name
	metric    string
	most      float64
}

func targets() []target {
	return []target{
		{"evidence of 45 KB, log seen before / ECDSA verification", "BenchmarkVerifyKnownLongLog", "x-ecdsa-verify", 2.5},
		{"evidence of 45 KB, new log / ECDSA verification", "BenchmarkVerifyNewLongLog", "x-ecdsa-verify", 8},
		{"release / bare composite, server CPU", "BenchmarkRelease", "composite-ratio", 1.3},
		{"release / tang recovery, server CPU", "BenchmarkRelease", "tang-ratio", 0.3},
		{"client TPM time, ECC P-256 / bare go-tpm", "BenchmarkQuote/ecc-nist-p256", "ratio", 1.2},
		{"client TPM time, ECC P-384 / bare go-tpm", "BenchmarkQuote/ecc-nist-p384", "ratio", 1.2},
		{"client TPM time, RSA-2048 / bare go-tpm", "BenchmarkQuote/rsa-2048", "ratio", 1.2},
		{"rewrap of a secret, stored / Transit's batch rewrap, CPU", "BenchmarkRewrap", "x-transit", 0.25},
		{"release during a rewrap / idle, p99 latency", "BenchmarkReleaseDuringRewrap", "p99-ratio", 1.5},
		{"rekey / release, server CPU", "BenchmarkRekeys", "x-release", 3},
		{"plan of 1,000,000 volumes that are read, all due: seconds", "BenchmarkPlan/all_due", "s/plan", 2},
		{"plan of 1,000,000 volumes that are read, all due: MB of memory", "BenchmarkPlan/all_due", "peak-MB", 16},
		{"plan of 1,000,000 volumes in the store, some due: seconds", "BenchmarkPlanOfRows/some_due", "s/plan", 2},
		{"plan of 1,000,000 volumes in the store, some due: MB of memory", "BenchmarkPlanOfRows/some_due", "peak-MB", 16},
		{"plan of 1,000,000 volumes in the store, all due: seconds", "BenchmarkPlanOfRows/all_due", "s/plan", 2},
		{"plan of 1,000,000 volumes in the store, all due: MB of memory", "BenchmarkPlanOfRows/all_due", "peak-MB", 16},
		{"initramfs growth / clevis's, raw", "BenchmarkInitramfs", "raw-ratio", 0.65},
		{"initramfs growth / clevis's, zstd", "BenchmarkInitramfs", "zstd-ratio", 0.65},
	}
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: summary FILE, with the output of go test -bench")
	}
	file, err := os.Open(args[0])
	if err != nil {
		return fmt.Errorf("reading benchmarks: %w", err)
	}
	defer file.Close()
	measured, err := parse(file)
	if err != nil {
		return fmt.Errorf("reading benchmarks %s: %w", args[0], err)
	}
	return printTable(out, measured)
}

// key names one figure.
type key struct{ benchmark, metric string }

// parse reads the figures of Go's benchmark format, of which each line is a
// name, a count, and pairs of value and unit.
func parse(r io.Reader) (map[key]float64, error) {
	measured := make(map[key]float64)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := fields[0]
		for i := 2; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %q is no figure", name, fields[i])
			}
			// With one processor Go adds no number, and what looks like one is the name's.
			measured[key{name, fields[i+1]}] = value
			measured[key{withoutNumber(name), fields[i+1]}] = value
		}
	}
	return measured, lines.Err()
}

// withoutNumber takes "-8" off a name: Go adds the number of processors.
func withoutNumber(name string) string {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return name
	}
	if _, err := strconv.Atoi(name[i+1:]); err != nil {
		return name
	}
	return name[:i]
}

func printTable(out io.Writer, measured map[key]float64) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	var missing []string
	fmt.Fprint(table, "target\treached\t\t  what\n")
	for _, t := range targets() {
		reached, ok := measured[key{t.benchmark, t.metric}]
		if !ok {
			missing = append(missing, t.benchmark+" "+t.metric)
			continue
		}
		verdict := "ok"
		if reached > t.most {
			verdict = fmt.Sprintf("missed by %.0f %%", 100*(reached/t.most-1))
		}
		fmt.Fprintf(table, "%.2f\t%.2f\t%s\t  %s\n", t.most, reached, verdict, t.what)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("not measured: %s", strings.Join(missing, ", "))
	}
	return nil
}
