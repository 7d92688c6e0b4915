package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite"
	"keywright.dev/test/process"
)

// leads stands for leader, says so once it leads, and writes in its term whenever it is
// asked to.
func leads(path string) error {
	s, err := sqlite.Open(context.Background(), sqlite.Config{Path: path})
	if err != nil {
		return err
	}
	in := bufio.NewReader(os.Stdin)
	fmt.Println("open")
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	term, err := awaitTerm(s)
	if err != nil {
		return err
	}
	fmt.Println("leads", term.Epoch)
	for {
		if _, err := in.ReadString('\n'); err != nil {
			return s.Close()
		}
		err := s.Transact(context.Background(), kms.Key{Term: &term}, func(kms.State) (kms.Outcome, error) {
			return kms.Outcome{Run: &kms.RotationRun{ID: fmt.Sprint(term.Epoch)}}, nil
		})
		switch {
		case err == nil:
			fmt.Println("written")
		case errors.Is(err, kms.ErrDeposed):
			fmt.Println("deposed")
		default:
			return err
		}
	}
}

func awaitTerm(s *sqlite.Store) (kms.Term, error) {
	c := &kms.Candidate{Name: "work", Holder: fmt.Sprint(os.Getpid()), Store: s, Uptime: uptime, Lasts: 300 * time.Millisecond}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		term, leads, err := c.Stand(context.Background())
		if leads || err != nil {
			return term, err
		}
		<-ticker.C
	}
}

func uptime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic(err)
	}
	return time.Duration(now.Nano())
}

// candidate is a child that plays the role.
type candidate struct {
	*process.Process
	in  io.Writer
	out chan string // a line each
}

func startCandidate(t *testing.T, path string) *candidate {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), roleVariable+"=leads", pathVariable+"="+path)
	in, err := child.StdinPipe()
	require.NoError(t, err)
	out, writer, err := os.Pipe()
	require.NoError(t, err)
	child.Stdout = writer
	c := &candidate{in: in, out: make(chan string)}
	c.Process, err = process.Start(child)
	require.NoError(t, err)
	t.Cleanup(c.Kill)
	require.NoError(t, writer.Close())
	go func() {
		defer close(c.out)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.out <- lines.Text()
		}
	}()
	return c
}

func (c *candidate) say(t *testing.T) {
	t.Helper()
	_, err := fmt.Fprintln(c.in, "go")
	require.NoError(t, err)
}

// Two servers that both have the store open, as where locks of files do nothing, stand
// for leader. The one that leads is stopped, and the other takes over; what the first
// one wants to write when it goes on is refused.
func TestStoppedLeaderWritesNothing(t *testing.T) {
	path := storePath(t)
	one := startCandidate(t, path)
	require.Equal(t, "open", <-one.out)
	require.NoError(t, os.Remove(path+".lock"))
	two := startCandidate(t, path)
	require.Equal(t, "open", <-two.out)

	one.say(t)
	two.say(t)
	var first, second *candidate
	select {
	case line := <-one.out:
		require.Equal(t, "leads 1", line)
		first, second = one, two
	case line := <-two.out:
		require.Equal(t, "leads 1", line)
		first, second = two, one
	}
	first.say(t)
	require.Equal(t, "written", <-first.out)
	require.NoError(t, syscall.Kill(first.PID(), syscall.SIGSTOP))
	require.Equal(t, "leads 2", <-second.out)
	require.NoError(t, syscall.Kill(first.PID(), syscall.SIGCONT))
	first.say(t)
	assert.Equal(t, "deposed", <-first.out)
	second.say(t)
	assert.Equal(t, "written", <-second.out)

	first.Kill()
	second.Kill()
	runs, err := open(t, path).RotationRuns(t.Context(), 9)
	require.NoError(t, err)
	require.Len(t, runs, 2)
	assert.Equal(t, []string{"2", "1"}, []string{runs[0].ID, runs[1].ID})
}
