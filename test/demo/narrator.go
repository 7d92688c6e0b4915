package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// narrator prints a story, step by step.
type narrator struct {
	out   io.Writer
	now   func() time.Time
	count int
}

// lineWidth is where a step's time ends.
const lineWidth = 100

// step prints a title, does what it says, then prints the time it took and what
// there is to tell of it.
func (n *narrator) step(title string, do func() (told []string, err error)) error {
	n.count++
	text := fmt.Sprintf("%d. %s ", n.count, title)
	fmt.Fprintf(n.out, "\n%s", text)
	began := n.now()
	told, err := do()
	took := seconds(n.now().Sub(began))
	fmt.Fprintln(n.out, strings.Repeat(".", max(3, lineWidth-len(text)-len(took)-1)), took)
	for _, line := range told {
		fmt.Fprintln(n.out, "   "+line)
	}
	return err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// typed returns a command as it stands after a prompt, and what it printed.
func typed(command, output string) []string {
	told := []string{"$ " + command}
	for line := range strings.Lines(output) {
		told = append(told, "  "+strings.TrimRight(line, "\n"))
	}
	return told
}
