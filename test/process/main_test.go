package process

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// roleVariable makes this test binary play a part in TestDiesWithParent.
const roleVariable = "KEYWRIGHT_PROCESS_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "parent":
		playParent()
	case "child":
		fmt.Println("child lives")
		select {}
	case "failing":
		fmt.Fprintln(os.Stderr, "no space left")
		os.Exit(3)
	case "locking":
		playLocking(os.Args[1])
	default:
		os.Exit(m.Run())
	}
}

// playParent starts a child that shares its standard output, and stays.
func playParent() {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), roleVariable+"=child")
	child.Stdout = os.Stdout
	p, err := Start(child)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	<-p.done
}

// playLocking holds a lock, and starts programs, which have it until they run.
func playLocking(path string) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	fmt.Println("step: locked")
	for err == nil {
		err = exec.Command("/bin/true").Run()
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
