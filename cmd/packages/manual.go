package main

import (
	"fmt"
	"strings"
)

// manual renders the client's manual page, in the macros of man(7).
func manual(h *help, r release) string {
	var page strings.Builder
	put := func(format string, args ...any) { fmt.Fprintf(&page, format+"\n", args...) }
	put(`.TH KEYWRIGHT\-UNLOCK 8 "%s" "Keywright %s" "Keywright"`, r.date.Format("2006-01-02"), roff(r.version))
	put(".SH NAME\nkeywright\\-unlock \\- open LUKS volumes at boot with keys from a Keywright service")
	put(".SH SYNOPSIS\n.B keywright\\-unlock\n.I COMMAND\n[\\fIFLAG\\fR]...")
	put(".SH DESCRIPTION\n%s", roff(h.about))
	put("In the initramfs it attests what the machine booted, gets the keys of this boot and opens the volumes.")
	put("In the running system it enrols the machine, and takes that back.\n.SH COMMANDS")
	for _, v := range h.verbs {
		for _, u := range v.uses {
			put(".SS %s", roff(strings.TrimSpace(v.name+" "+u.arguments)))
			put("%s.", roff(sentence(u.summary)))
		}
		for _, f := range v.flags {
			put(".TP\n\\fB\\-\\-%s\\fR \\fI%s\\fR\n%s", roff(f.name), roff(f.value), roff(f.usage))
		}
	}
	put(".SH EXIT STATUS\n%s", roff(sentence(h.codes)))
	put(".SH FILES")
	for _, f := range []struct{ path, text string }{
		{"/etc/keywright/unlock.toml", "The configuration, which enroll writes. Without it nothing is taken into an initramfs."},
		{"/etc/keywright/enrolling", "The volumes of an enrolment that was interrupted."},
		{"/etc/keywright/adding", "The volumes whose addition was interrupted."},
		{"/run/keywright", "What this boot opened, and the service's signed entry of it."},
	} {
		put(".TP\n.I %s\n%s", roff(f.path), f.text)
	}
	put(".SH SEE ALSO\n.BR cryptsetup (8),\n.BR initramfs\\-tools (7),\n.BR update\\-initramfs (8)")
	return page.String()
}

// roff escapes what its macros would take for theirs.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, `"`, `\(dq`, "…", "...").Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] }
