[
  inputs: ["{mix,.formatter}.exs", "{bench,lib,script,test}/**/*.{ex,exs}"]
]
