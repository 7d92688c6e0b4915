package debian

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"keywright.dev/test/vm"
)

const (
	memory = 1024
	cpus   = 2
	// longStep is how long the installation or a boot may be silent: on a busy
	// host the making of an initramfs takes minutes.
	longStep = 10 * time.Minute

	loggedIn = "console: root is logged in"
)

// Machine is a virtual machine with an installed system.
type Machine struct {
	Name string
	Dir  string // where its firmware's variables are kept
	TPM  *vm.TPM
	Disk string // path
	// Data are further disks.
	Data []string
	// Network and Clock are what it finds when it boots.
	Network vm.Network
	Clock   time.Time
}

// Guest is a machine that runs.
type Guest struct {
	*vm.Run
	commands int
}

// Boot powers the machine on. It reaches the ports, such as the service's.
func (m Machine) Boot(ctx context.Context, reach ...int) (*Guest, error) {
	disks := []vm.Disk{{Path: m.Disk}}
	for _, path := range m.Data {
		disks = append(disks, vm.Disk{Path: path})
	}
	run, err := vm.Machine{
		Name: m.Name, Firmware: vm.OVMFMicrosoft, NVRAM: filepath.Join(m.Dir, m.Name+".nvram"), TPM: m.TPM,
		Memory: memory, CPUs: cpus, Reach: reach, Patience: longStep, Disks: disks, BootFirst: true,
		Network: m.Network, Clock: m.Clock,
	}.Start(ctx)
	if err != nil {
		return nil, err
	}
	return &Guest{Run: run}, nil
}

// Login waits until the system is up and root has the console.
func (g *Guest) Login(ctx context.Context) error {
	_, err := g.Expect(ctx, loggedIn)
	return err
}

// Command runs a shell command and returns what it printed. A code other than 0
// is an error that has the output.
func (g *Guest) Command(ctx context.Context, command string) (string, error) {
	g.commands++
	begin, end := fmt.Sprintf("command %d begins", g.commands), fmt.Sprintf("command %d ended with ", g.commands)
	// Split, so that no line that is only typed looks like one that is printed.
	script := fmt.Sprintf("echo command '%d begins'; { %s\n} 2>&1; ended=$?; echo; echo command '%d ended with' $ended\n", g.commands, command, g.commands)
	if err := g.Send([]byte(script)); err != nil {
		return "", err
	}
	if _, err := g.Expect(ctx, begin); err != nil {
		return "", err
	}
	var output strings.Builder
	for {
		line, err := g.Expect(ctx, "")
		if err != nil {
			return output.String(), err
		}
		if code, done := strings.CutPrefix(line, end); done {
			return result(command, strings.TrimSuffix(output.String(), "\n"), code)
		}
		output.WriteString(line + "\n")
	}
}

func result(command, output, code string) (string, error) {
	if n, err := strconv.Atoi(strings.TrimSpace(code)); err != nil || n != 0 {
		return output, fmt.Errorf("the guest's command %q ended with %s: %s", command, code, output)
	}
	return output, nil
}
