package rotate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// maxSpan bounds what a policy can wait for, in days: a century.
const maxSpan = 36500

type unit struct {
	suffix string
	length time.Duration
}

func units() []unit {
	return []unit{{"w", 7 * day}, {"d", day}, {"h", time.Hour}, {"m", time.Minute}}
}

// parseSpan reads a whole number with one unit: 400d, 36h. A day has 24 hours.
func parseSpan(text string) (time.Duration, error) {
	for _, u := range units() {
		number, found := strings.CutSuffix(text, u.suffix)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || strconv.FormatUint(n, 10) != number || n == 0 || n > uint64(maxSpan*day/u.length) {
			break
		}
		return time.Duration(n) * u.length, nil
	}
	return 0, errors.New("want a number and w, d, h or m, such as 90d")
}

// formatSpan rounds to what a person reads at a glance.
func formatSpan(d time.Duration) string {
	for _, u := range units()[1:] {
		if d >= u.length {
			return fmt.Sprintf("%d%s", d/u.length, u.suffix)
		}
	}
	return "0m"
}

// Age is how old something may become; [Never] sets no limit.
type Age time.Duration

// Never is the age of what is not replaced for its age.
const Never Age = 0

func parseAge(text string) (Age, error) {
	if text == "never" {
		return Never, nil
	}
	d, err := parseSpan(text)
	if err != nil {
		return 0, errors.New(`want "never", or a number and w, d, h or m, such as 90d`)
	}
	return Age(d), nil
}

// String returns the age as a policy has it, rounded.
func (a Age) String() string {
	if a == Never {
		return "never"
	}
	return formatSpan(time.Duration(a))
}

// Rate bounds how many orders begin within any period of a length.
type Rate struct {
	Count  int
	Period time.Duration
}

const maxRate = 1_000_000

// parseRate reads 60/h or 5/m.
func parseRate(text string) (Rate, error) {
	number, unit, _ := strings.Cut(text, "/")
	period := map[string]time.Duration{"h": time.Hour, "m": time.Minute}[unit]
	n, err := strconv.Atoi(number)
	if err != nil || strconv.Itoa(n) != number || n < 1 || n > maxRate || period == 0 {
		return Rate{}, fmt.Errorf("want a number from 1 to %d a minute or an hour, such as 5/m or 60/h", maxRate)
	}
	return Rate{n, period}, nil
}
