package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"keywright.dev/kms/api"
)

const (
	formatText = "text"
	formatJSON = "json"
)

func (p *Program) checkFormat() error {
	if p.format != formatText && p.format != formatJSON {
		return usagef("--format is text or json")
	}
	return nil
}

// print writes v as JSON, or what text writes.
func (p *Program) print(v any, text func(w io.Writer)) error {
	if p.format == formatJSON {
		return writeJSON(p.Out, v)
	}
	out := &keeper{w: p.Out}
	text(out)
	if out.err != nil {
		return fmt.Errorf("writing the result: %w", out.err)
	}
	return nil
}

// keeper keeps the first error of a writer, and writes nothing after it.
type keeper struct {
	w   io.Writer
	err error
}

// Write implements [io.Writer].
func (k *keeper) Write(text []byte) (int, error) {
	if k.err != nil {
		return 0, k.err
	}
	n, err := k.w.Write(text)
	k.err = err
	return n, err
}

func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// printList writes a list as a JSON array, or as a table with a line for each.
func printList[T any](p *Program, list iter.Seq2[T, error], header string, line func(T) []string) error {
	items := []T{}
	for item, err := range list {
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	return p.print(items, func(w io.Writer) {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, strings.ReplaceAll(header, " ", "\t"))
		for _, item := range items {
			fmt.Fprintln(table, strings.Join(line(item), "\t"))
		}
		_ = table.Flush() // w keeps the error
	})
}

// fields writes names and values, one pair a line, without empty values.
func fields(w io.Writer, pairs ...string) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(table, "%s\t%s\n", pairs[i], pairs[i+1])
		}
	}
	_ = table.Flush() // w keeps the error
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

func when(t *time.Time) string {
	if t == nil {
		return ""
	}
	return clock(*t)
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// word quotes what a guest said where a terminal would not just print it.
func word(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// short is the beginning of an id, as much as people need.
func short(id string) string { return id[:min(12, len(id))] }

// nameOf is what a machine is called.
func nameOf(m api.Machine) string {
	switch {
	case m.Name != "":
		return m.Name
	case m.Proposed != "":
		return m.Proposed + " (proposed)"
	default:
		return short(m.ID)
	}
}

func writeDifferences(w io.Writer, list []api.Difference) {
	for _, d := range list {
		fmt.Fprintf(w, "  %s\n    was  %s\n    is   %s\n", d.Name, dash(d.Was), dash(d.Is))
	}
}
