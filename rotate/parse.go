package rotate

import (
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// The bounds of a policy.
const (
	MaxPolicy   = 1 << 20 // bytes
	maxRules    = 256
	maxPatterns = 64
	maxWindows  = 16
)

// policyFile is a policy as it is written; see docs/rotation.md.
type policyFile struct {
	Default *settingsFile `toml:"default"`
	Rules   []ruleFile    `toml:"rule"`
}

type ruleFile struct {
	Name     quoted `toml:"name"`
	Keyrings names  `toml:"keyrings"`
	Groups   names  `toml:"groups"`
	Machines names  `toml:"machines"`
	settingsFile
}

// settingsFile has nil for what is not set.
type settingsFile struct {
	Priority         *whole       `toml:"priority"`
	KeyringAge       *quoted      `toml:"keyring_age"`
	SecretAge        *quoted      `toml:"secret_age"`
	VolumeKeyAge     *quoted      `toml:"volume_key_age"`
	Jitter           *quoted      `toml:"jitter"`
	Windows          []windowFile `toml:"windows"`
	Rate             *quoted      `toml:"rate"`
	Concurrency      *whole       `toml:"concurrency"`
	AnswerWithin     *quoted      `toml:"answer_within"`
	RetainForRestore *quoted      `toml:"retain_for_restore"`
	DestroyWait      *quoted      `toml:"destroy_wait"`

	RetireMeasurementsAfter *count `toml:"retire_measurements_after"`
}

type windowFile struct {
	Opens quoted `toml:"opens"`
	Zone  quoted `toml:"zone"`
	Lasts quoted `toml:"lasts"`
}

// Parse reads a policy. What it does not set is as [Shipped]; what a rule does not
// set is as in the table default. Its error lists, a line each, what is wrong.
func Parse(text []byte) (*Policy, error) {
	if len(text) > MaxPolicy {
		return nil, fmt.Errorf("the policy has more than %d bytes", MaxPolicy)
	}
	var file policyFile
	meta, err := toml.Decode(string(text), &file)
	if err != nil {
		return nil, syntaxError(err)
	}
	if err := unknownKeys(meta.Undecoded()); err != nil {
		return nil, err
	}
	if len(file.Rules) > maxRules {
		return nil, fmt.Errorf("the policy has more than %d rules", maxRules)
	}
	return file.policy()
}

func (f *policyFile) policy() (*Policy, error) {
	var errs []error
	defaults := Shipped()
	if f.Default != nil {
		errs = append(errs, in("default", f.Default.over(&defaults))...)
	}
	p := &Policy{}
	names := map[string]bool{DefaultRule: true}
	for i := range f.Rules {
		r, wrong := f.Rules[i].rule(defaults)
		if names[r.Name] {
			wrong = append(wrong, errors.New("name: another rule has it"))
		}
		names[r.Name] = true
		errs = append(errs, in(fmt.Sprintf("rule %d (%s)", i+1, r.Name), wrong)...)
		p.Rules = append(p.Rules, r)
	}
	p.Rules = append(p.Rules, Rule{Name: DefaultRule, Settings: defaults})
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

func (f *ruleFile) rule(defaults Settings) (Rule, []error) {
	r := Rule{Name: string(f.Name), Keyrings: f.Keyrings, Groups: f.Groups, Machines: f.Machines, Settings: defaults}
	var errs []error
	if !validPattern(r.Name) || strings.Contains(r.Name, "*") {
		r.Name = fmt.Sprintf("%.80q", f.Name)
		errs = append(errs, errors.New("name: want a name of a-z, 0-9, hyphens and dots"))
	}
	errs = append(errs, checkPatterns("keyrings", f.Keyrings)...)
	errs = append(errs, checkPatterns("groups", f.Groups)...)
	errs = append(errs, checkPatterns("machines", f.Machines)...)
	errs = append(errs, f.over(&r.Settings)...)
	if len(r.Keyrings)+len(r.Groups)+len(r.Machines) == 0 {
		errs = append(errs, errors.New("it has neither keyrings nor groups nor machines, and would match everything: set it in [default]"))
	}
	if r.ofMachines() {
		errs = append(errs, f.notOfMachines()...)
	}
	if len(r.Keyrings)+len(r.Machines) > 0 && f.RetireMeasurementsAfter != nil {
		errs = append(errs, errors.New("retire_measurements_after: measurements are approved for a group: set it in a rule without keyrings and machines"))
	}
	return r, errs
}

// notOfMachines refuses what a rule for some machines cannot say: a keyring's versions
// serve all machines.
func (f *settingsFile) notOfMachines() (errs []error) {
	for _, s := range []struct {
		key string
		set *quoted
	}{{"keyring_age", f.KeyringAge}, {"destroy_wait", f.DestroyWait}} {
		if s.set != nil {
			errs = append(errs, fmt.Errorf("%s: a keyring serves all of its machines: set it in a rule without groups and machines", s.key))
		}
	}
	return errs
}

func checkPatterns(key string, patterns []string) (errs []error) {
	if patterns != nil && len(patterns) == 0 || len(patterns) > maxPatterns {
		return []error{fmt.Errorf("%s: want 1 to %d names, or leave it out to match all", key, maxPatterns)}
	}
	for _, p := range patterns {
		if !validPattern(p) {
			errs = append(errs, fmt.Errorf("%s: want names of a-z, 0-9, - and ., in which * stands for any characters, not %.80q", key, p))
		}
	}
	return errs
}

// maxPattern is how long the name of a machine can be, in bytes.
const maxPattern = 2 * 63

func validPattern(text string) bool {
	return text != "" && len(text) <= maxPattern && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789-.*") == ""
}

func in(where string, errs []error) []error {
	for i, err := range errs {
		errs[i] = fmt.Errorf("%s: %w", where, err)
	}
	return errs
}

func unknownKeys(keys []toml.Key) error {
	var errs []error
	for _, key := range keys {
		errs = append(errs, fmt.Errorf("unknown key %.80q: docs/rotation.md lists those that there are", key.String()))
	}
	return errors.Join(errs...)
}

// syntaxError says where it is without repeating the line.
func syntaxError(err error) error {
	var parse toml.ParseError
	switch {
	case !errors.As(err, &parse):
		// A value stands where a table is wanted, or the other way round.
		return fmt.Errorf("%s: see docs/rotation.md", strings.TrimPrefix(err.Error(), "toml: "))
	case parse.LastKey == "":
		return fmt.Errorf("line %d: %s", parse.Position.Line, parse.Message)
	}
	return fmt.Errorf("line %d: %.80s: %s", parse.Position.Line, parse.LastKey, parse.Message)
}
