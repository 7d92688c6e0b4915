package cli

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms/api"
	"keywright.dev/kms/root/quorum"
)

func (p *Program) custodyTest() *cobra.Command {
	var root, confirm string
	c := &cobra.Command{
		Use: "test", Short: "Hold a drill: would the custodians recover every key?", Args: exactly(),
		Long: `Hold a drill while the service runs. It prints a recipient and its fingerprint, reads
the names of the files that custodians hand over from its input, one a line, puts
the keys together in memory, compares each with the key in use, and wipes it. Nobody
sees a key. The audit log has who took part and what is proven.

With --confirm no share leaves a custodian: the first call writes a challenge for
each into a new folder, which they decrypt (age -d -i IDENTITY challenge-1.age) and
whose text they send back. The second call, with the same folder, reads these texts
from its input, one a line.

It ends with 4 where something is not proven, and names it.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if confirm != "" {
				return p.confirm(c, root, confirm)
			}
			return p.drill(c, root)
		},
	}
	c.Flags().StringVar(&root, "root", "", "the quorum, as keywright root list shows it (default: the only one)")
	c.Flags().StringVar(&confirm, "confirm", "", "ask for a sign of each identity alone; this `folder` keeps the challenges")
	return c
}

// drilled is what test prints.
type drilled struct {
	Root     string          `json:"root"`
	By       []string        `json:"by"`
	Versions []drilledResult `json:"versions"`
}

type drilledResult struct {
	Keyring string   `json:"keyring"`
	By      []string `json:"by"`
	Proven  bool     `json:"proven"`
	Error   string   `json:"error,omitempty"`
}

func (p *Program) drill(c *cobra.Command, root string) error {
	ctx := c.Context()
	held, err := p.custody(ctx, root)
	if err != nil {
		return err
	}
	session, err := quorum.NewSession()
	if err != nil {
		return err
	}
	defer session.Wipe()
	if err := p.showRecipient(session); err != nil {
		return err
	}
	wipeResults(p.gather(ctx, c.InOrStdin(), session, held.entries))
	report := quorum.Drill(held.entries, session.Given(), func(name string) (string, error) { return held.checks[name], nil })
	result := drilled{Root: held.root, By: []string{}, Versions: []drilledResult{}}
	record := api.Drill{Root: held.root}
	for _, proof := range report.Proofs {
		result.By = takers(result.By, proof.By)
		r := drilledResult{Keyring: proof.Name, By: proof.By, Proven: proof.Err == nil}
		if proof.Err == nil {
			record.Proven = append(record.Proven, proof.Name)
		} else {
			r.Error = whyMissing(proof.Err)
			record.Unproven = append(record.Unproven, proof.Name)
		}
		result.Versions = append(result.Versions, r)
	}
	record.By = result.By
	if err := p.recordDrill(ctx, record); err != nil {
		return err
	}
	if err := p.print(result, func(w io.Writer) { writeDrilled(w, result) }); err != nil {
		return err
	}
	if !report.Proven() {
		return errPartly
	}
	return nil
}

func (p *Program) recordDrill(ctx context.Context, d api.Drill) error {
	_, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (struct{}, error) {
		return struct{}{}, o.RecordDrill(ctx, d)
	})
	return err
}

func writeDrilled(w io.Writer, d drilled) {
	fmt.Fprintf(w, "drill of %s: %s took part\n", d.Root, quoted(d.By))
	for _, v := range d.Versions {
		if v.Proven {
			fmt.Fprintf(w, "proven      %s, by %s\n", v.Keyring, quoted(v.By))
		} else {
			fmt.Fprintf(w, "NOT PROVEN  %s: %s\n", v.Keyring, v.Error)
		}
	}
}

// challengesFile keeps what the answers are held against.
const challengesFile = "challenges.json"

// confirm makes challenges in a new folder, or takes the answers to those in it.
func (p *Program) confirm(c *cobra.Command, root, folder string) error {
	text, err := config.ReadFile(filepath.Join(folder, challengesFile), maxShareFile)
	if errors.Is(err, fs.ErrNotExist) {
		return p.challenge(c.Context(), root, folder)
	}
	if err != nil {
		return fmt.Errorf("reading the challenges: %w", err)
	}
	var asked api.CustodyChallenges
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		return fmt.Errorf("reading the challenges %s: %w", filepath.Join(folder, challengesFile), err)
	}
	return p.confirmed(c, asked)
}

func (p *Program) challenge(ctx context.Context, root, folder string) error {
	if err := checkNew(folder); err != nil {
		return err
	}
	asked, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.CustodyChallenges, error) {
		return o.CustodyChallenges(ctx, root)
	})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("writing challenges: %w", err)
	}
	files := []custodyFile{}
	for i, ch := range asked.Challenges {
		path := filepath.Join(folder, fmt.Sprintf("challenge-%d.age", i+1))
		if err := writeNewText(path, ch.Age); err != nil {
			return fmt.Errorf("writing the challenge for %s: %w", ch.Custodian, err)
		}
		files = append(files, custodyFile{ch.Custodian, path})
	}
	kept, err := json.Marshal(asked)
	if err == nil {
		err = writeNewText(filepath.Join(folder, challengesFile), string(kept))
	}
	if err != nil {
		return fmt.Errorf("writing challenges: %w", err)
	}
	return p.print(files, func(w io.Writer) {
		for _, f := range files {
			fmt.Fprintf(w, "%s is for %s\n", f.File, f.Custodian)
		}
		fmt.Fprintf(w, "each decrypts theirs with age -d -i IDENTITY and sends the text; then run this again with the texts as input\n")
	})
}

// confirmations is what test --confirm prints in the end.
type confirmations struct {
	Root      string   `json:"root"`
	Confirmed []string `json:"confirmed"`
	Missing   []string `json:"missing"`
}

func (p *Program) confirmed(c *cobra.Command, asked api.CustodyChallenges) error {
	answers := make(map[string]bool)
	fmt.Fprintln(p.Err, "give the texts that custodians sent, one a line, and end the input (Ctrl-D)")
	for answer := range lines(c.Context(), c.InOrStdin()) {
		if answer != "" {
			answers[answer] = true
		}
	}
	result := confirmations{asked.Root, []string{}, []string{}}
	for _, ch := range asked.Challenges {
		expect, err := hex.DecodeString(ch.Expect)
		if err != nil || len(expect) != 32 {
			return fmt.Errorf("the challenge for %s was changed since it was made: make new ones in another folder", ch.Custodian)
		}
		if answered(quorum.Challenge{Custodian: ch.Custodian, Expect: [32]byte(expect)}, answers) {
			result.Confirmed = append(result.Confirmed, ch.Custodian)
		} else {
			result.Missing = append(result.Missing, ch.Custodian)
		}
	}
	if len(answers) > 0 {
		fmt.Fprintf(p.Err, "%d texts answer no challenge in this folder\n", len(answers))
	}
	if err := p.recordDrill(c.Context(), api.Drill{Root: asked.Root, By: result.Confirmed, Missing: result.Missing}); err != nil {
		return err
	}
	if err := p.print(result, func(w io.Writer) { writeConfirmations(w, result) }); err != nil {
		return err
	}
	if len(result.Missing) > 0 {
		return errPartly
	}
	return nil
}

// answered looks for the answer to a challenge, and takes it.
func answered(ch quorum.Challenge, answers map[string]bool) bool {
	for answer := range answers {
		if ch.Confirms(answer) {
			delete(answers, answer)
			return true
		}
	}
	return false
}

func writeConfirmations(w io.Writer, r confirmations) {
	for _, name := range r.Confirmed {
		fmt.Fprintf(w, "confirmed    %s has their identity\n", name)
	}
	for _, name := range r.Missing {
		fmt.Fprintf(w, "NO ANSWER    %s\n", name)
	}
}
