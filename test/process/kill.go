package process

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// KillAtStep starts cmd and kills it, with the programs that it runs, a moment
// after it announced a step for the nth time, counted from 0, with a line
// "step: NAME" on its standard output. It returns when all of them are gone with the
// locks that they held. It is no error if cmd had ended by then, but if the step was
// never announced.
func KillAtStep(cmd *exec.Cmd, step string, nth int, delay time.Duration) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("reading what %s announces: %w", cmd.Path, err)
	}
	gone, alive, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	defer gone.Close()
	// Whatever it starts has the other end, also between fork and exec.
	cmd.ExtraFiles = append(cmd.ExtraFiles, alive)
	err = cmd.Start()
	_ = alive.Close() // this process's own
	if err != nil {
		return fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	left := nth + 1
	for lines := bufio.NewScanner(out); left > 0 && lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) > 1 && words[0] == "step:" && words[1] == step {
			left--
		}
	}
	time.Sleep(delay)
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have come to its end
	_ = cmd.Wait()                                      // killed
	_, _ = io.Copy(io.Discard, gone)
	if left > 0 {
		return fmt.Errorf("%s announced step %s %d times, want %d", cmd.Path, step, nth+1-left, nth+1)
	}
	return nil
}
