// Package config — see doc comment (to be written by its owner).
package config
