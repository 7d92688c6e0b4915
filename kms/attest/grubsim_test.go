package attest_test

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"keywright.dev/kms/attest"
)

// grub is GRUB as far as its measurements go: what is carried out is measured,
// then what it reads.
type grub struct {
	disk   map[string]string // contents by path
	events []logEvent
	loaded loaded
}

// loaded is what GRUB would start: the contents of files, or nothing.
type loaded struct {
	kernel, line string
	initrds      []string
}

const (
	stockLinux = "linux /vmlinuz root=/dev/mapper/root ro quiet"
	// broken begins what can be read but not used.
	broken = "broken"
)

func newGRUB() *grub {
	return &grub{disk: map[string]string{
		"/grub.cfg": "the configuration", "/grubenv": "the block", "/vmlinuz": "a kernel", "/initrd": "an initrd", "/ucode": "microcode",
		"/evil": "an evil kernel", "/evilinitrd": "an evil initrd", "/broken": broken,
	}}
}

func (g *grub) measure(pcr uint32, label, text string) {
	g.events = append(g.events, logEvent{pcr, evIPL, sha256.Sum256([]byte(text)), []byte(label + text + "\x00")})
}

// read measures a file and returns its content.
func (g *grub) read(path string) (content string, ok bool) {
	if content, ok = g.disk[path]; ok {
		g.events = append(g.events, logEvent{9, evIPL, sha256.Sum256([]byte(content)), []byte(path + "\x00")})
	}
	return content, ok
}

// configure carries out what stands in the stock configuration before an entry
// of the menu.
func (g *grub) configure() {
	g.run("configfile /grub.cfg")
	g.run("[ -s /grubenv ]")
	if _, ok := g.disk["/grubenv"]; ok {
		g.run("set have_grubenv=true")
		g.run("load_env")
	}
	g.run("set timeout=5")
	g.run("menuentry Debian { ... }")
	g.run("setparams Debian")
}

// run carries out one command line, whose words are separated by one space.
func (g *grub) run(command string) {
	g.measure(8, "grub_cmd: ", command)
	words := strings.Split(command, " ")
	switch args := words[1:]; words[0] {
	case "linux":
		g.linux(args)
	case "initrd":
		g.initrd(args)
	case "linux16", "chainloader":
		g.loaded = loaded{}
		g.loaded.kernel, _ = g.read(strings.Join(args, " "))
	case "load_env":
		g.read("/grubenv")
	case "[", "source", "configfile", "cat", "loadfont":
		for _, arg := range args {
			g.read(arg)
		}
	}
}

func (g *grub) linux(args []string) {
	g.loaded = loaded{}
	if len(args) == 0 {
		return
	}
	if kernel, ok := g.read(args[0]); ok && kernel != broken {
		g.loaded = loaded{kernel: kernel, line: strings.Join(args, " ")}
		g.measure(8, "kernel_cmdline: ", g.loaded.line)
	}
}

func (g *grub) initrd(args []string) {
	if g.loaded.kernel == "" {
		return
	}
	g.loaded.initrds = nil
	var contents []string
	for _, arg := range args {
		content, ok := g.read(arg)
		if !ok {
			return
		}
		contents = append(contents, content)
	}
	if !slices.Contains(contents, broken) {
		g.loaded.initrds = contents
	}
}

// log returns the events behind those of the firmware, shim and GRUB.
func (g *grub) log(t testing.TB) []byte {
	t.Helper()
	return edited(t, "grub-a", func(events []logEvent) []logEvent {
		first := slices.IndexFunc(events, func(e logEvent) bool { return e.pcr == 8 })
		return append(events[:first:first], g.events...)
	})
}

// mislabel gives files the names with which they look most like an approved boot:
// the second and third file are the environment block.
func (g *grub) mislabel() {
	n := 0
	for i := range g.events {
		if g.events[i].pcr != 9 {
			continue
		}
		name := "/file\x00"
		if n == 1 || n == 2 {
			name = "/grubenv\x00"
		}
		g.events[i].data = []byte(name)
		n++
	}
}

// chosen boots an entry of the menu with these commands.
func chosen(t testing.TB, commands ...string) attest.Boot {
	t.Helper()
	g := newGRUB()
	g.configure()
	for _, command := range commands {
		g.run(command)
	}
	return appraise(t, g.log(t))
}
