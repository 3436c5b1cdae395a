#compdef longvu

_longvu_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _LONGVU_COMPLETE=complete_zsh longvu)
}

compdef _longvu_completion longvu
