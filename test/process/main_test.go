package process

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
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
