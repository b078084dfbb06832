package probe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The bounds of a FileFeed.
const (
	maxFeedBytes   = 4 << 10
	minAge, maxAge = 10 * time.Millisecond, 7 * 24 * time.Hour
)

// validateFile returns what is wrong with the feed.
func (c Check) validateFile() (errs []error) {
	if !filepath.IsAbs(c.File.Path) || len(c.File.Path) > maxText || strings.ContainsRune(c.File.Path, 0) {
		errs = append(errs, fmt.Errorf("file %.40q: want an absolute path", c.File.Path))
	}
	if c.File.MaxAge < minAge || c.File.MaxAge > maxAge {
		errs = append(errs, fmt.Errorf("file max age %v: want %v to %v", c.File.MaxAge, minAge, maxAge))
	}
	return errs
}

// readFeed runs a File check. A file that is not there, not fresh, or makes no
// sense says nothing of the target.
func readFeed(c Check) Result {
	line, err := firstLine(fill(c.File.Path, c.Target), c.File.MaxAge, time.Now())
	if err != nil {
		return Result{Inconclusive: true, Err: clip("file: " + err.Error())}
	}
	return feedSays(line)
}

// firstLine returns the first line of a regular file that was written at most
// limit ago. It blocks on nothing that somebody may put at the path.
func firstLine(path string, limit time.Duration, now time.Time) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // or a fifo would wait for a writer
	if err != nil {
		var at *os.PathError
		if errors.As(err, &at) {
			err = at.Err // the path is in the configuration
		}
		return "", fmt.Errorf("cannot open: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("cannot look at: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	switch age := now.Sub(info.ModTime()); {
	case age > limit:
		return "", fmt.Errorf("written %v ago, at most %v wanted", age.Round(time.Second), limit)
	case age < -limit:
		return "", fmt.Errorf("written %v in the future", (-age).Round(time.Second))
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFeedBytes))
	if err != nil {
		return "", fmt.Errorf("cannot read: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line), nil
}

// feedSays is what a line of a feed means.
func feedSays(line string) Result {
	word, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	switch {
	case word == "up" && rest == "":
		return Result{}
	case word == "down" && rest == "":
		return Result{Err: "the file says down"}
	case word == "down":
		return Result{Err: clip("the file says down: " + rest)}
	}
	if w, ok := weightLine(line); ok {
		return Result{Weight: w, HasWeight: true}
	}
	return Result{Inconclusive: true, Err: clip(fmt.Sprintf("file: %.40q is not up, down or weight N", line))}
}

// weightLine reads "weight N" with N from 0 to 100.
func weightLine(line string) (uint8, bool) {
	word, number, _ := strings.Cut(strings.TrimSpace(line), " ")
	n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 8)
	if word != "weight" || err != nil || n > fullWeight {
		return 0, false
	}
	return uint8(n), true
}
