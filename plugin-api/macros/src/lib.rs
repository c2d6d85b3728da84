//! The `#[task]` attribute. It turns `async fn name(ctx: TaskContext<App>, input: Input) -> TaskResult<Output>` into
//! a value `name` that implements `plugin_api::Task`, so that it can be registered and enqueued by its name.

use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Tokens};
use quote::{format_ident, quote};
use syn::parse::Parser;
use syn::{Expr, ExprLit, FnArg, GenericArgument, ItemFn, Lit, Meta, PathArguments, ReturnType, Token, Type};

/// Makes a task of an async function. See the crate's documentation for the options:
/// `name = "…"`, `retry(max_attempts = 8, backoff = "2s..10m")`, `timeout = "30s"`, `soft_timeout = "25s"`, `result_ttl = "1d"`,
/// `expires = "1h"`, `concurrency = 4`, `max_running = 2`, `priorities`, `rate = "10/s"`, `on_lost = "fail"`,
/// `unique_key = "order_id"`, `serial_key = "order_id"`, `exhausted = "give_up"`, `upcast = from_v1`.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(options.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

#[derive(Default)]
struct Options {
    name: Option<(String, Span)>,
    max_attempts: Option<u32>,
    backoff_ms: Option<(u64, u64)>,
    timeout_ms: Option<u64>,
    soft_timeout: Option<(u64, Span)>,
    result_ttl_s: Option<u64>,
    concurrency: Option<u32>,
    max_running: Option<u32>,
    priorities: Option<Span>,
    rate: Option<String>,
    unique_key: Option<String>,
    serial_key: Option<String>,
    expires_ms: Option<u64>,
    on_lost: Option<Tokens>,
    exhausted: Option<(String, Span)>,
    upcast: Option<syn::Path>,
}

fn text(value: &Expr) -> syn::Result<(String, Span)> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok((text.value(), text.span())),
        other => Err(syn::Error::new_spanned(other, "expected a text in quotes")),
    }
}

fn number(value: &Expr) -> syn::Result<u32> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse(),
        other => Err(syn::Error::new_spanned(other, "expected a whole number")),
    }
}

/// A number of handlers at the same time.
fn handlers(value: &Expr, max: u32) -> syn::Result<u32> {
    let handlers = number(value)?;
    if (1..=max).contains(&handlers) {
        return Ok(handlers);
    }
    Err(syn::Error::new_spanned(value, format!("it lies between 1 and {max}")))
}

fn rate(value: &Expr) -> syn::Result<String> {
    let (text, span) = text(value)?;
    let legal = text.split_once('/').is_some_and(|(count, period)| {
        count.parse::<u32>().is_ok_and(|count| (1..=1_000_000).contains(&count))
            && ["s", "m", "h"].contains(&period)
    });
    let wrong = "a rate is a number from 1 to 1000000 and a period, as in \"10/s\", \"100/m\" or \"5/h\"";
    if legal { Ok(text) } else { Err(syn::Error::new(span, wrong)) }
}

/// The path of a field in the body.
fn field(value: &Expr) -> syn::Result<String> {
    let (text, span) = text(value)?;
    let legal =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    if text.len() <= 255 && text.split('.').all(legal) {
        return Ok(text);
    }
    Err(syn::Error::new(span, "a key names a field of the body, as in \"order_id\" or \"order.id\""))
}

fn on_lost(value: &Expr) -> syn::Result<Tokens> {
    let (text, span) = text(value)?;
    match text.as_str() {
        "retry" => Ok(quote!(::plugin_api::OnLost::Retry)),
        "fail" => Ok(quote!(::plugin_api::OnLost::Fail)),
        _ => Err(syn::Error::new(span, "on_lost is \"retry\" or \"fail\"")),
    }
}

fn function(value: &Expr) -> syn::Result<syn::Path> {
    match value {
        Expr::Path(path) => Ok(path.path.clone()),
        other => Err(syn::Error::new_spanned(
            other,
            "upcast names a function: `upcast = from_v1`, fn(Value) -> Option<Value>",
        )),
    }
}

fn duration_ms(text: &str, span: Span) -> syn::Result<u64> {
    let wrong = || {
        syn::Error::new(
            span,
            format!("`{text}` is no duration: write a number and ms, s, m, h or d, as in `30s`"),
        )
    };
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).filter(|ms| *ms > 0).ok_or_else(wrong)
}

fn metas(tokens: Tokens) -> syn::Result<impl Iterator<Item = Meta>> {
    Ok(syn::punctuated::Punctuated::<Meta, Token![,]>::parse_terminated.parse2(tokens)?.into_iter())
}

fn options(tokens: Tokens) -> syn::Result<Options> {
    let mut options = Options::default();
    for meta in metas(tokens)? {
        match &meta {
            Meta::NameValue(pair) if pair.path.is_ident("name") => options.name = Some(text(&pair.value)?),
            Meta::NameValue(pair) if pair.path.is_ident("timeout") => {
                let (text, span) = text(&pair.value)?;
                options.timeout_ms = Some(duration_ms(&text, span)?);
            }
            Meta::NameValue(pair) if pair.path.is_ident("soft_timeout") => {
                let (text, span) = text(&pair.value)?;
                options.soft_timeout = Some((duration_ms(&text, span)?, span));
            }
            Meta::NameValue(pair) if pair.path.is_ident("result_ttl") => {
                let (text, span) = text(&pair.value)?;
                options.result_ttl_s = Some(duration_ms(&text, span)?.div_ceil(1000));
            }
            Meta::NameValue(pair) if pair.path.is_ident("expires") => {
                let (text, span) = text(&pair.value)?;
                options.expires_ms = Some(duration_ms(&text, span)?);
            }
            Meta::NameValue(pair) if pair.path.is_ident("concurrency") => {
                options.concurrency = Some(handlers(&pair.value, 4096)?);
            }
            Meta::NameValue(pair) if pair.path.is_ident("max_running") => {
                options.max_running = Some(handlers(&pair.value, 100_000)?);
            }
            Meta::Path(path) if path.is_ident("priorities") => {
                options.priorities = Some(syn::spanned::Spanned::span(path));
            }
            Meta::NameValue(pair) if pair.path.is_ident("rate") => options.rate = Some(rate(&pair.value)?),
            Meta::NameValue(pair) if pair.path.is_ident("unique_key") => {
                options.unique_key = Some(field(&pair.value)?);
            }
            Meta::NameValue(pair) if pair.path.is_ident("serial_key") => {
                options.serial_key = Some(field(&pair.value)?);
            }
            Meta::NameValue(pair) if pair.path.is_ident("on_lost") => {
                options.on_lost = Some(on_lost(&pair.value)?);
            }
            Meta::NameValue(pair) if pair.path.is_ident("exhausted") => {
                options.exhausted = Some(text(&pair.value)?);
            }
            Meta::NameValue(pair) if pair.path.is_ident("upcast") => {
                options.upcast = Some(function(&pair.value)?)
            }
            Meta::List(list) if list.path.is_ident("retry") => retry(&mut options, list.tokens.clone())?,
            other => {
                let known = "known options: name, retry(max_attempts, backoff), timeout, result_ttl, expires, \
                             concurrency, max_running, priorities, rate, on_lost, unique_key, serial_key, \
                             soft_timeout, exhausted, upcast";
                return Err(syn::Error::new_spanned(other, known));
            }
        }
    }
    if let (Some((soft, span)), Some(hard)) = (options.soft_timeout, options.timeout_ms)
        && soft >= hard
    {
        return Err(syn::Error::new(span, "soft_timeout comes before timeout: a handler needs time to end"));
    }
    if let (Some(span), Some(_)) = (options.priorities, options.max_running) {
        let why = "a task with priorities has a queue for each, and max_running is a queue's cap: declare one of them";
        return Err(syn::Error::new(span, why));
    }
    Ok(options)
}

fn retry(options: &mut Options, tokens: Tokens) -> syn::Result<()> {
    for meta in metas(tokens)? {
        match &meta {
            Meta::NameValue(pair) if pair.path.is_ident("max_attempts") => {
                let attempts = number(&pair.value)?;
                if !(1..=1000).contains(&attempts) {
                    return Err(syn::Error::new_spanned(&pair.value, "max_attempts lies between 1 and 1000"));
                }
                options.max_attempts = Some(attempts);
            }
            Meta::NameValue(pair) if pair.path.is_ident("backoff") => {
                let (text, span) = text(&pair.value)?;
                let (first, last) = text.split_once("..").unwrap_or((&text, &text));
                let (first, last) = (duration_ms(first, span)?, duration_ms(last, span)?);
                if first > last {
                    return Err(syn::Error::new(span, "the longest wait is shorter than the first"));
                }
                options.backoff_ms = Some((first, last));
            }
            other => {
                return Err(syn::Error::new_spanned(other, "known: max_attempts, backoff = \"2s..10m\""));
            }
        }
    }
    Ok(())
}

/// `T` of a type whose last segment is `name<T>`.
fn argument<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

fn description(function: &ItemFn) -> String {
    let lines =
        function.attrs.iter().filter(|attr| attr.path().is_ident("doc")).filter_map(|attr| {
            match &attr.meta {
                Meta::NameValue(pair) => text(&pair.value).ok().map(|(text, _)| text.trim().to_owned()),
                _ => None,
            }
        });
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

fn opt<T: quote::ToTokens>(value: Option<T>) -> Tokens {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

fn expand(attributes: Tokens, item: Tokens) -> syn::Result<Tokens> {
    let options = options(attributes)?;
    let mut function: ItemFn = syn::parse2(item)?;
    let signature = function.sig.clone();
    let signature = &signature;
    let shape = "a task is `async fn name(ctx: TaskContext<State>, input: Input) -> TaskResult<Output>`";
    if signature.asyncness.is_none() || !signature.generics.params.is_empty() {
        return Err(syn::Error::new_spanned(signature, shape));
    }
    let types: Vec<&Type> = signature
        .inputs
        .iter()
        .filter_map(|input| match input {
            FnArg::Typed(typed) => Some(&*typed.ty),
            FnArg::Receiver(_) => None,
        })
        .collect();
    let [context, input] = types.as_slice() else { return Err(syn::Error::new_spanned(signature, shape)) };
    let state = argument(context, "TaskContext").ok_or_else(|| syn::Error::new_spanned(context, shape))?;
    let ReturnType::Type(_, result) = &signature.output else {
        return Err(syn::Error::new_spanned(signature, shape));
    };
    let output = argument(result, "TaskResult").ok_or_else(|| syn::Error::new_spanned(result, shape))?;

    let ident = signature.ident.clone();
    let (name, span) = options.name.unwrap_or_else(|| (ident.to_string(), ident.span()));
    let legal = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
    if name.is_empty() || name.len() > 64 || !name.chars().all(legal) {
        return Err(syn::Error::new(span, "a task's name has 1 to 64 characters of a-z, 0-9, _ and -"));
    }
    let exhausted = match options.exhausted {
        Some((hook, span)) if hook == name => {
            return Err(syn::Error::new(
                span,
                "exhausted names another task: this one would run itself for ever",
            ));
        }
        hook => opt(hook.map(|(hook, _)| hook)),
    };
    let description = description(&function);
    let max_attempts = opt(options.max_attempts);
    let backoff_initial_ms = opt(options.backoff_ms.map(|(first, _)| first));
    let backoff_max_ms = opt(options.backoff_ms.map(|(_, last)| last));
    let timeout_ms = opt(options.timeout_ms);
    let soft_timeout_ms = opt(options.soft_timeout.map(|(ms, _)| ms));
    let result_ttl_s = opt(options.result_ttl_s);
    let (concurrency, max_running) = (opt(options.concurrency), opt(options.max_running));
    let priorities = options.priorities.is_some();
    let rate = opt(options.rate);
    let (unique_key, serial_key) = (opt(options.unique_key), opt(options.serial_key));
    let (expires_ms, on_lost) = (opt(options.expires_ms), opt(options.on_lost));

    let upcast = opt(options.upcast);

    let visibility = std::mem::replace(&mut function.vis, syn::Visibility::Inherited);
    let inner = format_ident!("__task_{ident}");
    function.sig.ident = inner.clone();
    let docs = function.attrs.iter().filter(|attr| attr.path().is_ident("doc"));
    let docs = quote!(#(#docs)*);
    Ok(quote! {
        #docs
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug)]
        #visibility struct #ident;

        const _: () = {
            #function

            impl ::plugin_api::Task for #ident {
                type State = #state;
                type Input = #input;
                type Output = #output;
                const NAME: &'static str = #name;
                const DESCRIPTION: &'static str = #description;
                const OPTIONS: ::plugin_api::TaskOptions = ::plugin_api::TaskOptions {
                    max_attempts: #max_attempts,
                    backoff_initial_ms: #backoff_initial_ms,
                    backoff_max_ms: #backoff_max_ms,
                    timeout_ms: #timeout_ms,
                    soft_timeout_ms: #soft_timeout_ms,
                    result_ttl_s: #result_ttl_s,
                    concurrency: #concurrency,
                    max_running: #max_running,
                    priorities: #priorities,
                    rate: #rate,
                    unique_key: #unique_key,
                    serial_key: #serial_key,
                    expires_ms: #expires_ms,
                    on_lost: #on_lost,
                    exhausted: #exhausted,
                    upcast: #upcast,
                };

                async fn run(
                    ctx: ::plugin_api::TaskContext<Self::State>,
                    input: Self::Input,
                ) -> ::plugin_api::TaskResult<Self::Output> {
                    #inner(ctx, input).await
                }
            }
        };
    })
}

#[cfg(test)]
mod tests;
