package unlock

import "sync/atomic"

// Screen is what people see of a boot: a line for each thing that happens. While
// a passphrase is asked for, each line leaves the question standing at its end.
type Screen struct {
	// Line shows a line on the consoles.
	Line func(line string)
	// Question shows one behind which the answer is typed.
	Question func(question string)

	asking atomic.Bool
}

// Announce shows a line.
func (s *Screen) Announce(line string) {
	if s.asking.Load() {
		s.Question(line + "; passphrase: ")
		return
	}
	s.Line(line)
}
