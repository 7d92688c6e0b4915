package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
)

// help is what a program that uses Go's package flag says of itself.
type help struct {
	about string // what it is
	verbs []verb
	codes string // its exit codes
}

// verb is a command; all of its uses have the same flags.
type verb struct {
	name  string
	uses  []use
	flags []flagHelp
}

type use struct{ arguments, summary string }

type flagHelp struct{ name, value, usage string }

var (
	verbLine = regexp.MustCompile(`(?m)^  keywright-unlock (\S+) ?(.*)\n {8}(.*)$`)
	flagLine = regexp.MustCompile(`(?m)^  -(\S+)(?: (\S+))?(?:\n    )?\t(.*)$`)
)

// askHelp asks the client for its help, and for that of each verb.
func askHelp(ctx context.Context, program string) (*help, error) {
	text, err := said(ctx, program, "help")
	if err != nil {
		return nil, err
	}
	h, err := parseHelp(text)
	if err != nil {
		return nil, err
	}
	for i, v := range h.verbs {
		if v.uses[0].arguments == "" {
			continue
		}
		if text, err = said(ctx, program, v.name, "--help"); err != nil {
			return nil, err
		}
		if h.verbs[i].flags, err = parseFlags(text); err != nil {
			return nil, fmt.Errorf("reading the help of keywright-unlock %s: %w", v.name, err)
		}
	}
	return h, nil
}

func said(ctx context.Context, program string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("asking %s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func parseHelp(text string) (*help, error) {
	about, _, _ := strings.Cut(text, "\n")
	_, codes, found := strings.Cut(text, "Exit codes: ")
	verbs := verbLine.FindAllStringSubmatch(text, -1)
	if !found || len(verbs) == 0 {
		return nil, fmt.Errorf("the help of keywright-unlock lists no commands or no exit codes: %q", text)
	}
	h := &help{about: about, codes: strings.Join(strings.Fields(codes), " ")}
	for _, m := range verbs {
		if last := len(h.verbs) - 1; last < 0 || h.verbs[last].name != m[1] {
			h.verbs = append(h.verbs, verb{name: m[1]})
		}
		v := &h.verbs[len(h.verbs)-1]
		v.uses = append(v.uses, use{strings.TrimSpace(m[2]), m[3]})
	}
	return h, nil
}

func parseFlags(text string) ([]flagHelp, error) {
	var list []flagHelp
	for _, m := range flagLine.FindAllStringSubmatch(text, -1) {
		list = append(list, flagHelp{m[1], m[2], m[3]})
	}
	if want := strings.Count(text, "\n  -"); len(list) != want || want == 0 {
		return nil, fmt.Errorf("%d flags were understood of %d: %q", len(list), want, text)
	}
	return list, nil
}
