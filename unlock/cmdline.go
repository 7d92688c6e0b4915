package unlock

import (
	"os"
	"strings"
	"unicode/utf8"
)

// maxCommandLine bounds the command line that is reported, in bytes; the kernel
// takes less on every architecture.
const maxCommandLine = 4 << 10

// commandLine returns the kernel's command line, so that the service can show a
// text where a digest differs; empty where it cannot be told. It decides nothing.
func commandLine() string {
	text, err := os.ReadFile("/proc/cmdline")
	line := strings.TrimSuffix(string(text), "\n")
	if err != nil || len(line) > maxCommandLine || !utf8.ValidString(line) {
		return ""
	}
	return line
}
