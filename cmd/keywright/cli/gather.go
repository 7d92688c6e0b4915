package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms/root/quorum"
)

// maxShareFile is what package quorum takes, in bytes.
const maxShareFile = 16 << 20

// recipient is what custodians compare before they hand over.
type recipient struct {
	Recipient   string `json:"recipient"`
	Fingerprint string `json:"fingerprint"`
}

func (p *Program) showRecipient(session *quorum.Session) error {
	fingerprint, err := quorum.Fingerprint(session.Recipient())
	if err != nil {
		return err
	}
	r := recipient{session.Recipient(), fingerprint}
	return p.print(r, func(w io.Writer) { fields(w, "recipient", r.Recipient, "fingerprint", r.Fingerprint) })
}

// gather takes the files that custodians hand over until all entries open, or the
// input ends. It returns what came of each entry, in their order, whose keys the
// caller wipes.
func (p *Program) gather(ctx context.Context, in io.Reader, session *quorum.Session, entries []quorum.Entry) []quorum.Result {
	fmt.Fprintln(p.Err, "name the files that custodians hand over, one a line, and end the input (Ctrl-D) where no more will come")
	results, _ := quorum.Recover(entries, nil)
	known := 0
	for path := range lines(ctx, in) {
		if path == "" {
			continue
		}
		p.receive(session, path)
		wipeResults(results)
		var faults []quorum.Fault
		results, faults = quorum.Recover(entries, session.Given())
		for _, f := range faults[known:] {
			fmt.Fprintln(p.Err, f)
		}
		known = len(faults)
		writeMissing(p.Err, results)
		if len(missing(results)) == 0 {
			break
		}
	}
	return results
}

// receive takes a file; what is wrong with it hinders no other.
func (p *Program) receive(session *quorum.Session, path string) {
	text, err := config.ReadFile(path, maxShareFile)
	if err != nil {
		fmt.Fprintf(p.Err, "reading %s: %v\n", path, err)
		return
	}
	n, faults, err := session.Receive(path, string(text))
	for _, f := range faults {
		fmt.Fprintln(p.Err, f)
	}
	if err != nil {
		fmt.Fprintln(p.Err, err)
		return
	}
	fmt.Fprintf(p.Err, "%s: %d shares\n", path, n)
}

// lines yields the lines of in until it ends, or ctx does.
func lines(ctx context.Context, in io.Reader) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		read := make(chan string)
		go func() {
			defer close(read)
			for scanner := bufio.NewScanner(in); scanner.Scan(); {
				select {
				case read <- strings.TrimSpace(scanner.Text()):
				case <-ctx.Done():
					return
				}
			}
		}()
		for {
			select {
			case line, ok := <-read:
				if !ok || !yield(line) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// missing returns results of keyring versions that did not open, by no entry.
func missing(results []quorum.Result) []quorum.Result {
	opened := make(map[string]bool)
	for _, r := range results {
		opened[r.Name] = opened[r.Name] || r.Err == nil
	}
	return slices.DeleteFunc(slices.Clone(results), func(r quorum.Result) bool { return opened[r.Name] })
}

// writeMissing says what waits for whom; keyring versions that wait for the same
// in one line.
func writeMissing(w io.Writer, results []quorum.Result) {
	names := make(map[string][]string)
	var reasons []string
	for _, r := range missing(results) {
		why := whyMissing(r.Err)
		if len(names[why]) == 0 {
			reasons = append(reasons, why)
		}
		names[why] = append(names[why], r.Name)
	}
	for _, why := range reasons {
		fmt.Fprintf(w, "%s: %s\n", strings.Join(names[why], ", "), why)
	}
}

func whyMissing(err error) string {
	var failed quorum.Failed
	if !errors.As(err, &failed) || !errors.Is(err, quorum.ErrTooFew) {
		return oneLine(err.Error())
	}
	return fmt.Sprintf("%d of %d custodians; given by %s; missing are %s",
		len(failed.Have), failed.Set.Threshold, quoted(failed.Have), quoted(failed.Missing))
}

// quoted lists names by themselves, not by the order of their shares.
func quoted(names []string) string {
	if len(names) == 0 {
		return "nobody"
	}
	var list []string
	for _, name := range slices.Sorted(slices.Values(names)) {
		list = append(list, strconv.Quote(name)) // it may hold a comma
	}
	return strings.Join(list, ", ")
}

func wipeResults(results []quorum.Result) {
	for _, r := range results {
		r.Key.Wipe()
	}
}
