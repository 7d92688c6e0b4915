package main

import (
	"fmt"
	"strings"
)

// completions renders the client's completions; cobra has those of keywright.
func completions(h *help) map[string]string {
	return map[string]string{bashFile: bash(h), zshFile: zsh(h), fishFile: fish(h)}
}

func bash(h *help) string {
	var cases, names strings.Builder
	for _, v := range h.verbs {
		fmt.Fprintf(&names, " %s", v.name)
		if len(v.flags) == 0 {
			continue
		}
		fmt.Fprintf(&cases, "    %s) words='", v.name)
		for i, f := range v.flags {
			cases.WriteString(strings.Repeat(" ", min(i, 1)) + "--" + f.name)
		}
		cases.WriteString("' ;;\n")
	}
	return `# bash completion of keywright-unlock
_keywright_unlock() {
  local words=
  case $COMP_CWORD:${COMP_WORDS[1]} in
    1:*) words='` + strings.TrimSpace(names.String()) + `' ;;
` + strings.ReplaceAll(cases.String(), "    ", "    *:") + `  esac
  COMPREPLY=()
  # What is no flag is the value of one: a file, mostly.
  case $COMP_CWORD:$2 in
    1:* | *:-*) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$2") ;;
  esac
}
complete -o default -F _keywright_unlock keywright-unlock
`
}

func zsh(h *help) string {
	var verbs, cases strings.Builder
	for _, v := range h.verbs {
		fmt.Fprintf(&verbs, "    %s\n", quote(v.name+":"+v.uses[0].summary))
		fmt.Fprintf(&cases, "    %s) _arguments", v.name)
		for _, f := range v.flags {
			fmt.Fprintf(&cases, " \\\n      %s", quote("--"+f.name+"["+bracketless(f.usage)+"]"+zshValue(f)))
		}
		cases.WriteString(" ;;\n")
	}
	return `#compdef keywright-unlock
_keywright_unlock() {
  local -a verbs=(
` + verbs.String() + `  )
  if ((CURRENT == 2)); then
    _describe command verbs
    return
  fi
  local verb=$words[2]
  shift words
  ((CURRENT--))
  case $verb in
` + cases.String() + `  esac
}
_keywright_unlock "$@"
`
}

func zshValue(f flagHelp) string {
	if f.value == "" {
		return ""
	}
	return ":" + f.value + ":_files"
}

func fish(h *help) string {
	var out strings.Builder
	out.WriteString("# fish completion of keywright-unlock\n")
	for _, v := range h.verbs {
		fmt.Fprintf(&out, "complete -c keywright-unlock -n __fish_use_subcommand -f -a %s -d %s\n", v.name, quote(v.uses[0].summary))
		for _, f := range v.flags {
			takes := ""
			if f.value != "" {
				takes = " -r"
			}
			fmt.Fprintf(&out, "complete -c keywright-unlock -n %s -l %s%s -d %s\n", quote("__fish_seen_subcommand_from "+v.name), f.name, takes, quote(f.usage))
		}
	}
	return out.String()
}

// quote quotes for a shell, in whose single quotes nothing but these end.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "’") + "'" }

// bracketless replaces what ends a description in zsh.
func bracketless(text string) string {
	return strings.NewReplacer("[", "(", "]", ")", ":", `\:`).Replace(text)
}
